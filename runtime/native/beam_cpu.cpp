#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "beam.h"

namespace edgecap {
namespace {

constexpr float kNothing = -1.0e9f;  // the score of a slot that holds no hypothesis

void Require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

bool UsesHistory(const BeamConfig& c) {
  return c.repetition_penalty != 1.0f || c.no_repeat_ngram_size > 0;
}

const BeamConfig& Checked(const BeamConfig& c) {
  Require(c.batch >= 1, "batch must be at least 1");
  Require(c.beams >= 1 && c.beams <= BeamSearch::kMaxBeams, "beams must be 1 to 16");
  Require(c.vocab >= 2, "the vocabulary must have at least 2 tokens");
  Require(c.max_new_tokens >= 1 && c.max_new_tokens <= c.positions,
          "max_new_tokens must be 1 to the number of positions");
  Require(c.eos >= 0 && c.eos < c.vocab, "eos must be a token of the vocabulary");
  Require(c.repetition_penalty > 0.0f, "repetition_penalty must be above 0");
  Require(c.no_repeat_ngram_size >= 0, "no_repeat_ngram_size must not be negative");
  return c;
}

}  // namespace

BeamSearch::BeamSearch(const BeamConfig& config, const BeamBuffers& buffers)
    : config_(Checked(config)), buffers_(buffers), uses_history_(UsesHistory(config)) {
  const size_t k = config_.beams;
  const size_t rows = config_.batch * k;
  const size_t width = k * config_.positions;
  const size_t limit = config_.max_new_tokens;
  done_.assign(config_.batch, 0);
  running_.assign(rows, kNothing);
  pool_.assign(rows, Finished{kNothing, 0.0f, 0, 0, 0, false});
  step_tokens_.assign(limit * rows, 0);
  step_parents_.assign(limit * rows, 0);
  step_logprobs_.assign(limit * rows, 0.0f);
  const size_t tiles = LogitTiles(config_.vocab);
  tiles_.assign(tiles * k, LogitTile{});
  scratch_.assign(tiles * kLogitTile, -std::numeric_limits<float>::infinity());
  suppressed_.assign(config_.vocab, 0);
  for (const int64_t token : config_.suppress_tokens) {
    if (token >= 0 && token < config_.vocab) suppressed_[token] = 1;
  }
  penalised_.assign(limit + 1, 0.0f);
  sequence_.assign(limit + 1, config_.bos);
  old_ancestry_.assign(k * width, 0);
  for (size_t row = 0; row < rows; ++row) {
    if (row % k == 0) running_[row] = 0.0f;  // the other beams of an image start as copies
    buffers_.tokens[row] = config_.bos;
    buffers_.parents[row] = static_cast<int64_t>(row);
  }
  std::memset(buffers_.ancestry, 0, rows * width);
}

bool BeamSearch::Step(const float* logits, std::ptrdiff_t row_stride, const LogitTile* tiles) {
  const int limit = config_.max_new_tokens;
  if (images_done_ == config_.batch || position_ == limit) return true;
  const std::ptrdiff_t rows = static_cast<std::ptrdiff_t>(config_.batch) * config_.beams;
  for (int image = 0; image < config_.batch; ++image) {
    const int first = image * config_.beams;
    if (!done_[image]) {
      Advance(image, {logits + first * row_stride, row_stride,
                      tiles == nullptr ? nullptr : tiles + first, rows});
    }
    ExtendAncestry(image);
  }
  ++position_;
  return images_done_ == config_.batch || position_ == limit;
}

void BeamSearch::Advance(int image, ImageLogits logits) {
  const int k = config_.beams;
  const int first = image * k;
  const bool last = position_ + 1 == config_.max_new_tokens;
  if (logits.tiles == nullptr) SumTiles(&logits);
  const int count = k == 1 ? GreedyCandidate(image, logits) : TopCandidates(image, logits);

  bool ends[2 * kMaxBeams];
  float alive[2 * kMaxBeams];
  int order[2 * kMaxBeams];
  for (int i = 0; i < count; ++i) {
    ends[i] = last || top_[i].token == config_.eos;
    alive[i] = ends[i] ? top_[i].score + kNothing : top_[i].score;
    int at = i;  // stable insertion sort, best first
    for (; at > 0 && alive[i] > alive[order[at - 1]]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  const size_t step = static_cast<size_t>(position_) * config_.batch * k;
  for (int i = 0; i < k; ++i) {
    const Candidate& next = top_[order[i]];
    const int row = first + i;
    running_[row] = alive[order[i]];
    buffers_.tokens[row] = step_tokens_[step + row] = next.token;
    buffers_.parents[row] = step_parents_[step + row] = first + next.row;
    step_logprobs_[step + row] = next.logprob;
  }

  if (!UpdateFinished(image, top_, ends, count)) return;
  done_[image] = 1;
  ++images_done_;
  for (int row = first; row < first + k; ++row) {
    buffers_.tokens[row] = config_.pad;
    buffers_.parents[row] = row;
  }
}

// Merges this step's ended candidates with the image's pool of K; true when the image is done.
bool BeamSearch::UpdateFinished(int image, const Candidate* top, const bool* ends, int count) {
  const int k = config_.beams;
  const float norm = static_cast<float>(std::pow(position_ + 1, config_.length_penalty));
  Finished merged[3 * kMaxBeams];
  int size = 0;
  for (int i = 0; i < k + count; ++i) {
    Finished entry;
    if (i < k) {
      entry = pool_[image * k + i];
    } else {
      const Candidate& c = top[i - k];
      const bool accepted = ends[i - k] && i - k < k;  // EOS counts at rank < K only
      const float score = c.score / norm;
      entry = Finished{accepted ? score : score + kNothing,
                       c.logprob,
                       image * k + c.row,
                       c.token,
                       position_,
                       accepted};
    }
    int at = size++;
    for (; at > 0 && entry.score > merged[at - 1].score; --at) merged[at] = merged[at - 1];
    merged[at] = entry;
  }
  std::copy(merged, merged + k, pool_.begin() + image * k);

  if (position_ + 1 == config_.max_new_tokens) return true;
  if (k == 1) return ends[0];
  const auto begin = pool_.begin() + image * k;
  const bool full = std::all_of(begin, begin + k, [](const Finished& f) { return f.real; });
  if (full && config_.early_stopping == EarlyStopping::kTrue) return true;
  return !CanImprove(image);
}

// Whether the best running beam could still beat the worst finished one.
bool BeamSearch::CanImprove(int image) const {
  const int k = config_.beams;
  const bool exact =
      config_.early_stopping == EarlyStopping::kNever && config_.length_penalty > 0.0;
  const int length = exact ? config_.max_new_tokens : position_ + 1;
  const float best =
      running_[image * k] / static_cast<float>(std::pow(length, config_.length_penalty));
  const float worst = pool_[image * k + k - 1].score;
  for (int i = 0; i < k; ++i) {
    if (best > (pool_[image * k + i].real ? worst : kNothing)) return true;
  }
  return false;
}

void BeamSearch::ExtendAncestry(int image) {
  const int k = config_.beams;
  const size_t width = static_cast<size_t>(k) * config_.positions;
  const size_t used = static_cast<size_t>(k) * position_;
  const int first = image * k;
  uint8_t* rows = buffers_.ancestry + first * width;
  bool moved = false;
  for (int i = 0; i < k; ++i) moved |= buffers_.parents[first + i] != first + i;
  if (moved) {
    for (int i = 0; i < k; ++i) std::memcpy(&old_ancestry_[i * width], rows + i * width, used);
  }
  for (int i = 0; i < k; ++i) {
    const size_t parent = static_cast<size_t>(buffers_.parents[first + i] - first);
    if (moved) std::memcpy(rows + i * width, &old_ancestry_[parent * width], used);
    rows[i * width + used + parent] = 1;
  }
}

int BeamSearch::Hypothesis(int image, int rank, int64_t* tokens, float* logprobs,
                           float* score) const {
  const int k = config_.beams;
  const auto begin = pool_.begin() + image * k;
  if (done_[image]) return WriteHypothesis(begin[rank], tokens, logprobs, score);
  // Stopped by the caller: finished hypotheses first, then what still runs.
  for (int i = 0; i < k; ++i) {
    if (begin[i].real && rank-- == 0) return WriteHypothesis(begin[i], tokens, logprobs, score);
  }
  const int row = image * k + rank;
  if (position_ == 0 || !(running_[row] > kNothing / 2)) {
    return WriteHypothesis(Finished{kNothing, 0.0f, 0, 0, 0, false}, tokens, logprobs, score);
  }
  const size_t at = static_cast<size_t>(position_ - 1) * config_.batch * k + row;
  const float norm = static_cast<float>(std::pow(position_, config_.length_penalty));
  return WriteHypothesis(Finished{running_[row] / norm, step_logprobs_[at], step_parents_[at],
                                  step_tokens_[at], position_ - 1, true},
                         tokens, logprobs, score);
}

int BeamSearch::WriteHypothesis(const Finished& last, int64_t* tokens, float* logprobs,
                                float* score) const {
  if (!last.real) {
    *score = kNothing;
    return 0;
  }
  const size_t rows = static_cast<size_t>(config_.batch) * config_.beams;
  *score = last.score;
  tokens[last.step] = last.token;
  logprobs[last.step] = last.logprob;
  int row = last.row;
  for (int step = last.step - 1; step >= 0; --step) {
    const size_t at = step * rows + row;
    tokens[step] = step_tokens_[at];
    logprobs[step] = step_logprobs_[at];
    row = step_parents_[at];
  }
  return last.step + 1;
}

}  // namespace edgecap
