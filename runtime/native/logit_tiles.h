// Log-softmax of rows of logits by tiles of 64. A tile's part may be computed while the tile is in
// the cache and by any thread; beam search puts the parts together and skips most tiles.
#pragma once

#include <cstddef>

namespace edgecap {

constexpr int kLogitTile = 64;

struct LogitTile {
  double sum;  // of exp(logit)
  float max;   // NaN counts as -inf, +inf as the largest float
};

// A row's log-softmax is (logit - max) - log_sum; both are 0 for a row of -inf.
struct RowSum {
  float max;
  float log_sum;
};

inline int LogitTiles(int vocab) { return (vocab + kLogitTile - 1) / kLogitTile; }

// Of `count` <= 64 logits.
LogitTile SumTile(const float* logits, int count);

// Of a row of logits [vocab] whose tiles lie `stride` apart.
RowSum SumRow(const LogitTile* tiles, std::ptrdiff_t stride, const float* logits, int vocab);

// out = (logit - max) - log_sum, NaN as -inf and +inf as the largest float. With a sum of zeros
// these are the logits.
void LogProbs(const float* logits, int count, RowSum sum, float* out);

// Whether a value of a tile is above the threshold, with `add`.
bool AnyAbove(const float* x, float add, float threshold);

}  // namespace edgecap
