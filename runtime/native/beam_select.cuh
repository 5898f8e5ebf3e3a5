// The second stage of a beam step, one block an image: the best 2K candidates -> the next beams,
// the pool of finished hypotheses, the stop rule and the caches' origins.
#pragma once

#include "beam_candidates.cuh"

namespace edgecap::gpu {

// Whether the best running beam could still beat the worst finished one.
__device__ inline bool CanImprove(const BeamView& v, int image, int position, float best_running) {
  const int beams = v.shape.beams;
  const Finished* pool = v.pool + image * beams;
  const int length = v.shape.bound_at_limit ? v.shape.limit : position + 1;
  const float best = __fdiv_rn(best_running, v.norms[length]);
  const float worst = pool[beams - 1].score;
  for (int i = 0; i < beams; ++i) {
    if (best > (pool[i].real ? worst : kNothing)) return true;
  }
  return false;
}

// Takes the step with the candidates found: beams, history, pool, done.
template <int kWarps>
__device__ void Advance(const BeamView& v, int image, int position,
                        SelectExchange<kWarps>& exchange) {
  const BeamShape& s = v.shape;
  const int first = image * s.beams;
  const int rows = s.batch * s.beams;
  const int count = s.beams == 1 ? 1 : 2 * s.beams;
  const bool last = position + 1 == s.limit;
  const Candidate* best = exchange.lists.best;
  const int me = threadIdx.x;
  // Greedy candidates are ordered by logits, so their scores are still to be summed.
  const auto score_of = [&](int i) {
    return s.beams == 1 ? __fadd_rn(best[i].value, exchange.running[0]) : best[i].key;
  };
  const auto ends = [&](int i) { return last || best[i].index % s.vocab == s.eos; };
  const auto alive_of = [&](int i) {
    return ends(i) ? __fadd_rn(score_of(i), kNothing) : score_of(i);
  };
  float best_running = 0.0f;
  if (me < count) {
    const float alive = alive_of(me);
    int rank = 0;
    for (int i = 0; i < count; ++i) {
      const float other = alive_of(i);
      rank += other > alive || (other == alive && i < me);
    }
    if (rank < s.beams) {
      const int row = first + rank, parent = best[me].index / s.vocab;
      const int token = best[me].index % s.vocab;
      const size_t at = static_cast<size_t>(position) * rows + row;
      v.running[row] = alive;
      v.step_tokens[at] = v.tokens[row] = token;
      v.step_parents[at] = v.parents[row] = first + parent;
      v.step_logprobs[at] = best[me].value;
      exchange.parents[rank] = parent;
    }
  }

  // The pool's old hypotheses stand before new ones of the same score.
  const int size = s.beams + count;
  if (me < s.beams) exchange.pool[me] = v.pool[first + me];
  if (me < count) {
    const bool accepted = ends(me) && me < s.beams;  // EOS counts at rank < K only
    const float score = __fdiv_rn(score_of(me), v.norms[position + 1]);
    exchange.pool[s.beams + me] = {accepted ? score : __fadd_rn(score, kNothing),
                                   best[me].value,
                                   first + best[me].index / s.vocab,
                                   best[me].index % s.vocab,
                                   position,
                                   accepted};
  }
  __syncthreads();
  if (me < size) {
    const Finished mine = exchange.pool[me];
    int rank = 0;
    for (int i = 0; i < size; ++i) {
      const float other = exchange.pool[i].score;
      rank += other > mine.score || (other == mine.score && i < me);
    }
    if (rank < s.beams) v.pool[first + rank] = mine;
  }
  __syncthreads();
  if (me == 0) {
    best_running = v.running[first];
    bool full = true;
    for (int i = 0; i < s.beams; ++i) full = full && v.pool[first + i].real;
    bool done = last;
    if (s.beams == 1) {
      done = done || ends(0);
    } else {
      done =
          done || (full && s.early_stopping == 1) || !CanImprove(v, image, position, best_running);
    }
    exchange.done = done;
    if (done) {
      v.done[image] = 1;
      atomicAdd(&v.control->images_done, 1);
    }
  }
  __syncthreads();
}

// Caches: each row takes over its parent's origins, and slot (position, parent) becomes its own. A
// thread has a column to itself, so rows may change places in it.
template <int kWarps>
__device__ void ExtendOrigins(const BeamView& v, int first, int position, const int* parents) {
  const int beams = v.shape.beams;
  bool moved = false;
  for (int i = 0; i < beams; ++i) moved = moved || parents[i] != i;
  const auto permute = [&](uint8_t* rows, size_t width, int used) {
    for (int column = threadIdx.x; column < used; column += kWarps * 32) {
      uint8_t old[kMaxBeams];
#pragma unroll
      for (int i = 0; i < kMaxBeams; ++i) {
        if (i < beams) old[i] = rows[parents[i] * width + column];
      }
#pragma unroll
      for (int i = 0; i < kMaxBeams; ++i) {
        if (i < beams) rows[i * width + column] = old[i];
      }
    }
  };
  const size_t positions = v.shape.positions, width = beams * positions;
  uint8_t* origin = v.origin + first * positions;
  if (moved) permute(origin, positions, position);
  for (int i = threadIdx.x; i < beams; i += kWarps * 32) {
    origin[i * positions + position] = static_cast<uint8_t>(parents[i]);
  }
  if (!v.shape.has_ancestry) return;
  uint8_t* ancestry = v.ancestry + first * width;
  if (moved) permute(ancestry, width, beams * position);
  for (int i = threadIdx.x; i < beams; i += kWarps * 32) {
    ancestry[i * width + static_cast<size_t>(beams) * position + parents[i]] = 1;
  }
}

// Selection for one image; all threads of one block of kWarps warps call it, after every partial
// result of the image is written and visible. `sequences` is shared memory for kWarps * (limit + 1)
// ints where UsesHistory. Gives 1 or 0, whether the search goes on, in thread 0 of the block that
// closes the step (the last image's), -1 elsewhere.
template <int kWarps, typename Source>
__device__ int SelectImage(const BeamView& v, int image, int position, const Source& source,
                           int* sequences, SelectExchange<kWarps>& exchange) {
  const int beams = v.shape.beams;
  const int first = image * beams, me = threadIdx.x;
  const bool rests = v.done[image];
  if (rests) {
    if (me < beams) exchange.parents[me] = me;
    __syncthreads();
  } else {
    FindBest<kWarps>(v, first, position, source, sequences, exchange);
    Advance<kWarps>(v, image, position, exchange);
    if (exchange.done && me < beams) {
      exchange.parents[me] = me;
      v.tokens[first + me] = v.shape.pad;
      v.parents[first + me] = first + me;
    }
    __syncthreads();
    if (me < beams) {
      v.tokens64[first + me] = v.tokens[first + me];
      v.parents64[first + me] = v.parents[first + me];
    }
  }
  ExtendOrigins<kWarps>(v, first, position, exchange.parents);
  __threadfence();
  __syncthreads();
  if (me != 0) return -1;
  BeamControl* control = v.control;
  if (atomicAdd(&control->images_seen, 1u) + 1 != static_cast<unsigned>(v.shape.batch)) return -1;
  __threadfence();
  control->images_seen = 0;
  control->position = position + 1;
  *v.position64 = position + 1;
  const bool over = atomicAdd(&control->images_done, 0) == v.shape.batch;
  // Written from outside while the search runs.
  const bool stopped = v.stop != nullptr && *const_cast<const volatile int*>(v.stop) != 0;
  control->keep_going = !over && !stopped && position + 1 < v.shape.limit;
  return control->keep_going;
}

}  // namespace edgecap::gpu
