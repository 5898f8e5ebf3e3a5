// The state of one beam search on the device: B images, K beams each, R = B * K rows, those of an
// image together. All of it lies in one allocation that the caller owns; Arrange says where.
//
// Nothing about the step is a launch argument: kernels read the position from memory, so a captured
// graph may replay them. The meaning of the search is that of runtime/decoding/reference.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "launch.h"

namespace edgecap::gpu {

constexpr int kMaxBeams = 16;
constexpr int kMaxVocab = 262144;
constexpr int kMaxBatch = 64;
constexpr int kMaxPositions = 1024;
constexpr int kMaxParts = 4096;      // parts of a row of logits
constexpr float kNothing = -1.0e9f;  // the score of a slot that holds no hypothesis
constexpr float kLargest = 3.402823466e38f;

// What does not change during a search; goes to kernels by value.
struct BeamShape {
  int batch;      // B
  int beams;      // K
  int vocab;      // V
  int positions;  // T: the width of origin, and K * T that of ancestry
  int limit;      // tokens at most, EOS counted; at most T
  int min_new_tokens;
  int no_repeat_ngram_size;
  int early_stopping;  // 0 False, 1 True, 2 "never"
  int bound_at_limit;  // 1: the stop rule measures running beams at `limit` tokens
  int bos, eos, pad;
  int parts;         // S: how many partial results a row of logits gives
  int has_ancestry;  // 1: the state holds ancestry
  float repetition_penalty;
};

struct BeamControl {
  int position;          // steps taken; the position of the next one
  int keep_going;        // 0: every image is done; steps change nothing
  int images_done;       // of B
  unsigned images_seen;  // images whose selection of this step is over; back to 0 after it
};

struct Finished {
  float score;  // length-normalised
  float logprob;
  int row;  // global row that the last token continues
  int token;
  int step;
  int real;  // 0: an empty slot
};

struct Entry {
  float key;
  int index;  // a token, or beam * V + token; -1 in an empty entry, whose key is -inf
};

// What one part of a row of logits comes to: this head, then 2K entries, the part's best tokens by
// logit, ties to the lower token. Tokens that a processor touches count in `max` and `sum` but are
// not among the entries. NaN counts as -inf, +inf as the largest float.
struct PartialHead {
  float max;   // the largest logit; -inf where there is none
  float next;  // no untouched token left out has a larger logit; -inf where none was left out
  double sum;  // of exp(logit - max); 0 where max is -inf
};

struct ResultHead {
  float score;  // kNothing with length 0: no such hypothesis
  int length;   // tokens, EOS included where it was generated
};

// Where everything lies.
struct BeamView {
  BeamShape shape;
  BeamControl* control;
  int64_t* position64;  // mirrors for engines that bind int64
  int64_t* tokens64;    // [R]
  int64_t* parents64;   // [R]
  int* tokens;          // [R] the next input of each row; BOS before the first step
  int* parents;         // [R] the global row each row continues
  float* running;       // [R] sums of log-probabilities
  uint8_t* origin;    // [R, T] beam k' whose cache slot (t, k') holds the row's own past of step t
  uint8_t* ancestry;  // [R, K * T] 1 at t * K + k' of the same; null without has_ancestry
  uint8_t* done;      // [B]
  Finished* pool;     // [B, K] best first
  int* step_tokens;   // [limit, R] what each row appended at each step,
  int* step_parents;  //   which global row it continued,
  float* step_logprobs;     //   and at which log-probability
  unsigned* arrived;        // [B] blocks of the image that wrote their partial results
  float* penalised;         // [R, limit + 1] raw logits of the row's tokens so far, BOS first
  float* norms;             // [limit + 1] length ** length_penalty
  uint32_t* suppressed;     // one bit a token, [(V + 31) / 32]
  unsigned char* partials;  // [R, S] of PartialBytes each
  unsigned char* results;   // [B, K] of ResultBytes each
  const int* stop;          // not 0: this step is the last; null where nothing stops a search
};

__host__ __device__ inline size_t PartialBytes(const BeamShape& s) {
  return sizeof(PartialHead) + 2 * static_cast<size_t>(s.beams) * sizeof(Entry);
}

// A result: its head, `limit` tokens (int32), `limit` log-probabilities (float32).
__host__ __device__ inline size_t ResultBytes(const BeamShape& s) {
  return sizeof(ResultHead) + 8 * static_cast<size_t>(s.limit);
}

__host__ __device__ inline bool UsesHistory(const BeamShape& s) {
  return s.repetition_penalty != 1.0f || s.no_repeat_ngram_size > 0;
}

__device__ inline PartialHead* PartialAt(const BeamView& v, int row, int part) {
  const size_t at = static_cast<size_t>(row) * v.shape.parts + part;
  return reinterpret_cast<PartialHead*>(v.partials + at * PartialBytes(v.shape));
}

__device__ inline Entry* EntriesOf(PartialHead* head) { return reinterpret_cast<Entry*>(head + 1); }

// Lays the state out from `base` (256-byte aligned) and gives its size in bytes through `bytes`.
// With base 0 only the size means something.
inline BeamView Arrange(const BeamShape& s, uintptr_t base, size_t* bytes) {
  uintptr_t at = base;
  const auto take = [&at](auto*& member, size_t count) {
    using Member = std::remove_reference_t<decltype(*member)>;
    member = reinterpret_cast<Member*>(at);
    at += (count * sizeof(Member) + 255) & ~static_cast<uintptr_t>(255);
  };
  const size_t rows = static_cast<size_t>(s.batch) * s.beams;
  const size_t width = static_cast<size_t>(s.beams) * s.positions;
  BeamView v{};
  v.shape = s;
  take(v.control, 1);
  take(v.position64, 1);
  take(v.tokens64, rows);
  take(v.parents64, rows);
  take(v.tokens, rows);
  take(v.parents, rows);
  take(v.running, rows);
  take(v.origin, rows * s.positions);
  if (s.has_ancestry) take(v.ancestry, rows * width);
  take(v.done, s.batch);
  take(v.pool, rows);
  take(v.step_tokens, s.limit * rows);
  take(v.step_parents, s.limit * rows);
  take(v.step_logprobs, s.limit * rows);
  take(v.arrived, s.batch);
  take(v.penalised, s.repetition_penalty != 1.0f ? rows * (s.limit + 1) : 1);
  take(v.norms, s.limit + 1);
  take(v.suppressed, (static_cast<size_t>(s.vocab) + 31) / 32);
  take(v.partials, rows * s.parts * PartialBytes(s));
  take(v.results, rows * ResultBytes(s));
  *bytes = at - base;
  return v;
}

}  // namespace edgecap::gpu
