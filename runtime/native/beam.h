// Beam search on the CPU: raw pointers in, raw pointers out, no Python and no allocation in Step().
//
// The meaning is written down in runtime/decoding/reference.py; this file must give the same
// tokens, parents and ancestry bit for bit. Compile it with -ffp-contract=off: a fused
// multiply-add rounds once where the specification rounds twice, and ties would fall differently.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "logit_tiles.h"

namespace edgecap {

enum class EarlyStopping : int { kFalse = 0, kTrue = 1, kNever = 2 };

struct BeamConfig {
  int batch = 1;           // B
  int beams = 1;           // K, at most kMaxBeams
  int vocab = 2;           // V, at least 2
  int positions = 1;       // T, the width of ancestry is K * T
  int max_new_tokens = 1;  // at most T
  int min_new_tokens = 0;
  int no_repeat_ngram_size = 0;
  float repetition_penalty = 1.0f;
  double length_penalty = 1.0;
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  int64_t bos = 0;
  int64_t eos = 0;
  int64_t pad = 0;
  std::vector<int64_t> suppress_tokens;
};

// Memory the caller owns and engines may bind; it must outlive the search. R = B * K.
struct BeamBuffers {
  int64_t* tokens;    // [R]
  int64_t* parents;   // [R]
  uint8_t* ancestry;  // [R, K * T], 0 or 1
};

class BeamSearch {
 public:
  static constexpr int kMaxBeams = 16;

  // Allocates everything, and writes BOS, identity parents and empty ancestry to the buffers.
  // Throws std::invalid_argument when a number is out of its range.
  BeamSearch(const BeamConfig& config, const BeamBuffers& buffers);

  // Consumes logits [R, V], rows `row_stride` floats apart, of step position(). Returns true when
  // every image is done; further calls change nothing. tiles : [tiles of V, R] as SumTile gives
  // them, by who made the logits; null: they are summed here, to the same bits
  bool Step(const float* logits, std::ptrdiff_t row_stride, const LogitTile* tiles = nullptr);

  int position() const { return position_; }
  const BeamConfig& config() const { return config_; }

  // Writes hypothesis `rank` (0 is the best) of `image`; tokens and logprobs have room for
  // max_new_tokens values. Returns its length; 0 with score -1e9 means that none exists.
  int Hypothesis(int image, int rank, int64_t* tokens, float* logprobs, float* score) const;

 private:
  struct Candidate {
    float score;    // accumulated log-probability
    float logprob;  // of this token alone, processed
    int32_t row;    // within the image
    int32_t token;
  };
  struct Finished {
    float score;  // length-normalised
    float logprob;
    int32_t row;  // global row that the last token continues
    int32_t token;
    int32_t step;
    bool real;  // false: an empty slot
  };

  // The logits of one image, and their tiles' sums.
  struct ImageLogits {
    const float* rows;
    std::ptrdiff_t row_stride;
    const LogitTile* tiles;
    std::ptrdiff_t tile_stride;
  };

  void Advance(int image, ImageLogits logits);
  int TopCandidates(int image, const ImageLogits& logits);
  int GreedyCandidate(int image, const ImageLogits& logits);
  void SumTiles(ImageLogits* logits);
  int OfferTile(const float* logprobs, float add, int beam, int start, int count);
  int LargestToken(const ImageLogits& logits);
  bool IsBanned(int token) const {
    return suppressed_[token] || (token == config_.eos && position_ < config_.min_new_tokens);
  }
  bool UpdateFinished(int image, const Candidate* top, const bool* ends, int count);
  bool CanImprove(int image) const;
  void ExtendAncestry(int image);
  void Process(float* values, int row);
  void WalkBack(int row);
  int WriteHypothesis(const Finished& last, int64_t* tokens, float* logprobs, float* score) const;

  const BeamConfig config_;
  const BeamBuffers buffers_;
  const bool uses_history_;
  int position_ = 0;
  int images_done_ = 0;
  std::vector<uint8_t> done_;          // [B]
  std::vector<float> running_;         // [R], accumulated log-probabilities
  std::vector<Finished> pool_;         // [B, K], best first
  std::vector<int32_t> step_tokens_;   // [max_new_tokens, R]: what each row appended at each step,
  std::vector<int32_t> step_parents_;  //   which row of the step before it continued,
  std::vector<float> step_logprobs_;   //   and at which log-probability
  std::vector<uint8_t> suppressed_;    // [V]
  std::vector<LogitTile> tiles_;       // [tiles of V, K], of logits that come without
  std::vector<float> scratch_;         // one row of logits, padded with -inf to whole tiles
  std::vector<float> penalised_;       // [max_new_tokens + 1]
  std::vector<int64_t> sequence_;      // [max_new_tokens + 1], BOS first
  std::vector<uint8_t> old_ancestry_;  // [K, K * T]
  Candidate top_[2 * kMaxBeams];
};

}  // namespace edgecap
