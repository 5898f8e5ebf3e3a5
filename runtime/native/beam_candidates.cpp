// The first half of a beam step: of the logits of an image, the candidates for its next tokens.
#include <algorithm>
#include <limits>

#include "beam.h"

namespace edgecap {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();

float Penalised(float value, float penalty) {
  return value < 0.0f ? value * penalty : value / penalty;
}

}  // namespace

void BeamSearch::SumTiles(ImageLogits* logits) {
  const int k = config_.beams;
  LogitTile* tile = tiles_.data();
  for (int start = 0; start < config_.vocab; start += kLogitTile) {
    const int count = std::min(kLogitTile, config_.vocab - start);
    for (int beam = 0; beam < k; ++beam) {
      *tile++ = SumTile(logits->rows + beam * logits->row_stride + start, count);
    }
  }
  logits->tiles = tiles_.data();
  logits->tile_stride = k;
}

int BeamSearch::TopCandidates(int image, const ImageLogits& logits) {
  const int k = config_.beams;
  const int vocab = config_.vocab;
  float* x = scratch_.data();
  int count = 0;
  for (int beam = 0; beam < k; ++beam) {
    const float* row = logits.rows + beam * logits.row_stride;
    const LogitTile* tile = logits.tiles + beam;
    const RowSum sum = SumRow(tile, logits.tile_stride, row, vocab);
    const float add = running_[image * k + beam];
    if (uses_history_) {
      LogProbs(row, vocab, sum, x);
      Process(x, image * k + beam);
    }
    for (int start = 0; start < vocab; start += kLogitTile, tile += logits.tile_stride) {
      if (uses_history_) {
        count = OfferTile(x + start, add, beam, start, count);
        continue;
      }
      // Rounding is monotone: no score of the tile is above what its largest logit comes to.
      const float bound = ((tile->max - sum.max) - sum.log_sum) + add;
      if (count == 2 * k && !(bound > top_[count - 1].score)) continue;
      LogProbs(row + start, std::min(kLogitTile, vocab - start), sum, x);
      count = OfferTile(x, add, beam, start, count);
    }
  }
  return count;
}

// Tokens from `start` on find their places among the best 2K, which are `count` so far. Tiles come
// in flat order and an equal score never moves up, so ties keep the lower index.
int BeamSearch::OfferTile(const float* logprobs, float add, int beam, int start, int count) {
  const int wanted = 2 * config_.beams;
  if (count == wanted && !AnyAbove(logprobs, add, top_[count - 1].score)) return count;
  const int size = std::min(kLogitTile, config_.vocab - start);
  for (int i = 0; i < size; ++i) {
    if (count == wanted && !(logprobs[i] + add > top_[count - 1].score)) continue;
    const bool banned = IsBanned(start + i);
    if (count == wanted && banned) continue;
    const float logprob = banned ? kNegInf : logprobs[i];
    const float score = logprob + add;
    int at = count == wanted ? count - 1 : count++;
    for (; at > 0 && score > top_[at - 1].score; --at) top_[at] = top_[at - 1];
    top_[at] = Candidate{score, logprob, beam, start + i};
  }
  return count;
}

// One beam is greedy search: the token is chosen on processed logits, as in transformers; its
// reported log-probability is processed like that of any other beam.
int BeamSearch::GreedyCandidate(int image, const ImageLogits& logits) {
  const int vocab = config_.vocab;
  const RowSum sum = SumRow(logits.tiles, logits.tile_stride, logits.rows, vocab);
  float* x = scratch_.data();
  int token = 0;
  float logprob = kNegInf;
  if (uses_history_) {
    LogProbs(logits.rows, vocab, {0.0f, 0.0f}, x);
    Process(x, image);
    token = static_cast<int>(std::max_element(x, x + vocab) - x);
    LogProbs(logits.rows + token, 1, sum, x + token);
    Process(x, image);
    logprob = x[token];
  } else {
    token = LargestToken(logits);
    if (!IsBanned(token)) LogProbs(logits.rows + token, 1, sum, &logprob);
  }
  top_[0] = Candidate{logprob + running_[image], logprob, 0, token};
  return 1;
}

// The first token of the largest logit that may be chosen; 0 where all are -inf.
int BeamSearch::LargestToken(const ImageLogits& logits) {
  const int vocab = config_.vocab;
  float* x = scratch_.data();
  float best = kNegInf;
  int token = 0;
  const LogitTile* tile = logits.tiles;
  for (int start = 0; start < vocab; start += kLogitTile, tile += logits.tile_stride) {
    if (!(tile->max > best)) continue;
    const int size = std::min(kLogitTile, vocab - start);
    LogProbs(logits.rows + start, size, {0.0f, 0.0f}, x);
    for (int i = 0; i < size; ++i) {
      if (!(x[i] > best) || IsBanned(start + i)) continue;
      best = x[i];
      token = start + i;
    }
  }
  return token;
}

// Applies the processors to one row of log-probabilities (of logits when greedy), in place.
void BeamSearch::Process(float* values, int row) {
  const int64_t vocab = config_.vocab;
  if (uses_history_) {
    WalkBack(row);
    const int length = position_ + 1;
    if (config_.repetition_penalty != 1.0f) {
      // Read all before writing any: a token that occurs twice is penalised once.
      for (int i = 0; i < length; ++i) {
        const int64_t token = sequence_[i];
        if (token < vocab) penalised_[i] = Penalised(values[token], config_.repetition_penalty);
      }
      for (int i = 0; i < length; ++i) {
        if (sequence_[i] < vocab) values[sequence_[i]] = penalised_[i];
      }
    }
    const int n = config_.no_repeat_ngram_size;
    if (n > 0 && length >= n) {
      const int64_t* prefix = sequence_.data() + length - n + 1;
      for (int i = 0; i + n <= length; ++i) {
        const int64_t* window = sequence_.data() + i;
        const int64_t banned = window[n - 1];
        if (banned < vocab && std::equal(window, window + n - 1, prefix)) values[banned] = kNegInf;
      }
    }
  }
  if (position_ < config_.min_new_tokens) values[config_.eos] = kNegInf;
  for (const int64_t token : config_.suppress_tokens) {
    if (token < vocab) values[token] = kNegInf;
  }
}

// Writes BOS and the tokens of `row` so far to sequence_.
void BeamSearch::WalkBack(int row) {
  const size_t rows = static_cast<size_t>(config_.batch) * config_.beams;
  for (int step = position_ - 1; step >= 0; --step) {
    sequence_[step + 1] = step_tokens_[step * rows + row];
    row = step_parents_[step * rows + row];
  }
}

}  // namespace edgecap
