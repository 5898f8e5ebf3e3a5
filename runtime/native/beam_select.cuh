// The second stage of a beam step, one block an image: partial results -> the best 2K candidates ->
// the next beams, the pool of finished hypotheses, the stop rule and the caches' origins.
//
// The meaning is runtime/decoding/reference.py's, in the same float32 operations. Two things there
// rest on every logit of a row: scores that round to the same float although their logits differ,
// where the lower token goes first, and candidates of -inf. The first is noticed (PartialHead.next)
// and settled by reading the image's logits again; the second needs only the order of tokens.
#pragma once

#include "beam_topk.cuh"

namespace edgecap::gpu {

// For kernels that keep no logits in memory: equal scores of different logits stay as they are.
struct NoLogits {
  static constexpr bool kPresent = false;
  __device__ float At(int, int) const { return 0.0f; }
  __device__ float Below(float x) const { return x; }
};

__device__ __forceinline__ float FloatBelow(float x) {
  if (x == 0.0f) return __int_as_float(0x80000001);
  return __int_as_float(__float_as_int(x) + (x > 0.0f ? -1 : 1));
}

// Rows of logits in memory, of type T.
template <typename T>
struct StoredLogits {
  static constexpr bool kPresent = true;
  const T* logits;
  size_t stride;  // elements from row to row

  __device__ float At(int row, int token) const {
    return Clean(ToFloat(logits[row * stride + token]));
  }
  // No other value of T lies between this and x, a value of T or the largest float.
  __device__ float Below(float x) const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return FloatBelow(x);
    } else if constexpr (std::is_same_v<T, __half>) {
      // Neighbours are at least 2^-12 of the value apart, and 2^-24 where values are tiny.
      return x >= kLargest ? 65504.0f : x - fmaxf(fabsf(x) * 0x1p-12f, 0x1p-25f);
    } else {
      return x >= kLargest ? 3.38953139e38f : x - fmaxf(fabsf(x) * 0x1p-9f, 0x1p-134f);
    }
  }
};

template <int kWarps>
struct SelectExchange {
  static_assert(kWarps >= 2, "the pool and its newcomers, 3K <= 48, have a thread each");
  ListExchange<kWarps> lists;
  float row_max[kMaxBeams], row_log[kMaxBeams], running[kMaxBeams];
  Finished pool[3 * kMaxBeams];
  int parents[kMaxBeams];  // within the image
  int done;
};

// Scores of one image's candidates at one step.
struct Scorer {
  const float *row_max, *row_log, *running;
  float penalty;
  bool greedy;

  __device__ __forceinline__ float Logprob(int beam, float logit) const {
    if (!(row_max[beam] > NegativeInfinity())) return NegativeInfinity();
    return __fsub_rn(__fsub_rn(logit, row_max[beam]), row_log[beam]);
  }
  // What candidates are ordered by, and the log-probability they report.
  __device__ __forceinline__ float Key(int beam, float logit, bool penalised,
                                       float* logprob) const {
    *logprob = Logprob(beam, logit);
    if (penalised) *logprob = Penalise(*logprob, penalty);
    if (greedy) return penalised ? Penalise(logit, penalty) : logit;
    return __fadd_rn(*logprob, running[beam]);
  }
};

// The largest logit of each row and the logarithm of its sum, a warp a row.
template <int kWarps>
__device__ void SumRows(const BeamView& v, int first, SelectExchange<kWarps>& exchange) {
  const int lane = threadIdx.x & 31;
  for (int beam = threadIdx.x >> 5; beam < v.shape.beams; beam += kWarps) {
    SoftSum soft;
    for (int part = lane; part < v.shape.parts; part += 32) {
      const PartialHead* head = PartialAt(v, first + beam, part);
      soft.Merge(__ldcg(&head->max), __ldcg(&head->sum));
    }
    soft.ReduceWarp();
    if (lane == 0) {
      exchange.row_max[beam] = soft.max;
      exchange.row_log[beam] =
          soft.max > NegativeInfinity() ? static_cast<float>(log(soft.sum)) : 0.0f;
      exchange.running[beam] = v.running[first + beam];
    }
  }
  __syncthreads();
}

// Offers every entry of the image's partial results, and the tokens that only a penalty touches.
template <int kWarps>
__device__ void OfferPartials(const BeamView& v, int first, int position, const Scorer& score,
                              int* sequences, TopList& list) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int per_part = 2 * v.shape.beams;
  const int per_row = v.shape.parts * per_part;
  const int total = v.shape.beams * per_row;
  for (int base = warp * 32; base < total; base += kWarps * 32) {
    const int i = base + lane;
    float key = NegativeInfinity(), logprob = 0.0f;
    int index = -1;
    if (i < total) {
      const int beam = i / per_row, part = i % per_row / per_part;
      const Entry* entry = EntriesOf(PartialAt(v, first + beam, part)) + i % per_part;
      index = __ldcg(&entry->index);
      if (index >= 0) {
        key = score.Key(beam, __ldcg(&entry->key), false, &logprob);
        index += beam * v.shape.vocab;
      }
    }
    list.Offer(index >= 0 && key > NegativeInfinity(), key, index, logprob);
  }
  if (v.shape.repetition_penalty == 1.0f) return;
  int* sequence = sequences + warp * (v.shape.limit + 1);
  for (int beam = warp; beam < v.shape.beams; beam += kWarps) {
    const int row = first + beam;
    const Touched touched = LoadTouched(v, row, position, sequence, lane, 32);
    __syncwarp();
    for (int base = 0; base <= position; base += 32) {
      const int i = base + lane;
      const int token = i <= position ? sequence[i] : v.shape.vocab;
      bool offered = token < v.shape.vocab && !touched.Banned(token);
      for (int j = 0; offered && j < i; ++j) offered = sequence[j] != token;
      float logprob = 0.0f;
      float key = NegativeInfinity();
      if (offered) key = score.Key(beam, __ldcg(PenalisedOf(v, row) + i), true, &logprob);
      // Greedy search falls back on token 0, whose log-probability may be finite all the same.
      offered = offered && (key > NegativeInfinity() || (score.greedy && token == 0));
      list.Offer(offered, key, beam * v.shape.vocab + token, logprob);
    }
    __syncwarp();
  }
}

// Whether a token that no partial result lists could round to a score as good as `worst`, the last
// of the best 2K.
template <int kWarps, typename Source>
__device__ bool IsAmbiguous(const BeamView& v, int first, const Scorer& score, float worst,
                            const Source& source) {
  bool ambiguous = false;
  const int total = v.shape.beams * v.shape.parts;
  for (int i = threadIdx.x; i < total; i += kWarps * 32) {
    const int beam = i / v.shape.parts;
    PartialHead* head = PartialAt(v, first + beam, i % v.shape.parts);
    float next = __ldcg(&head->next);
    if (!(next > NegativeInfinity())) continue;
    // Left-out tokens with the last entry's very logit come after it: they have higher numbers.
    const float last = __ldcg(&EntriesOf(head)[2 * v.shape.beams - 1].key);
    if (!(next < last)) next = source.Below(last);
    float logprob;
    ambiguous |= score.Key(beam, next, false, &logprob) >= worst;
  }
  return __syncthreads_or(ambiguous) != 0;
}

// The best of every token of the image by score.
template <int kWarps, typename Source>
__device__ void FindBestOfAll(const BeamView& v, int first, int position, const Scorer& score,
                              const Source& source, int* sequence, ListExchange<kWarps>& exchange) {
  TopList list(2 * v.shape.beams);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int beam = 0; beam < v.shape.beams; ++beam) {
    const int row = first + beam;
    __syncthreads();
    const Touched touched = LoadTouched(v, row, position, sequence, threadIdx.x, kWarps * 32);
    __syncthreads();
    for (int base = warp * 32; base < v.shape.vocab; base += kWarps * 32) {
      const int token = base + lane;
      float key = NegativeInfinity(), logprob = 0.0f;
      if (token < v.shape.vocab) {
        const float logit = source.At(row, token);
        key = score.Key(beam, logit, touched.Penalised(token), &logprob);
        const int index = beam * v.shape.vocab + token;
        if (list.Wants(key, index) && touched.Banned(token)) key = NegativeInfinity();
      }
      list.Offer(key > NegativeInfinity(), key, beam * v.shape.vocab + token, logprob);
    }
  }
  MergeLists<kWarps>(list, exchange);
}

// The best 2K candidates (one when greedy) to exchange.lists.best, in order.
template <int kWarps, typename Source>
__device__ void FindBest(const BeamView& v, int first, int position, const Source& source,
                         int* sequences, SelectExchange<kWarps>& exchange) {
  const int wanted = v.shape.beams == 1 ? 1 : 2 * v.shape.beams;
  SumRows<kWarps>(v, first, exchange);
  const Scorer score{exchange.row_max, exchange.row_log, exchange.running,
                     v.shape.repetition_penalty, v.shape.beams == 1};
  {
    TopList list(wanted);
    OfferPartials<kWarps>(v, first, position, score, sequences, list);
    MergeLists<kWarps>(list, exchange.lists);
  }
  if constexpr (Source::kPresent) {
    if (wanted > 1 && exchange.lists.count == wanted) {
      const float worst = exchange.lists.best[wanted - 1].key;
      if (IsAmbiguous<kWarps>(v, first, score, worst, source)) {
        FindBestOfAll<kWarps>(v, first, position, score, source, sequences, exchange.lists);
      }
    }
  }
  // Fewer than 2K possible tokens: the impossible ones follow in the order of their flat index.
  if (threadIdx.x == 0) {
    int index = 0;
    for (int i = exchange.lists.count; i < wanted; ++i, ++index) {
      for (bool taken = true; taken;) {
        taken = false;
        for (int j = 0; j < exchange.lists.count && !taken; ++j) {
          taken = exchange.lists.best[j].index == index;
        }
        index += taken;
      }
      exchange.lists.best[i] = {NegativeInfinity(), index, NegativeInfinity()};
    }
  }
  __syncthreads();
}

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
  control->keep_going = !over && position + 1 < v.shape.limit;
  return control->keep_going;
}

}  // namespace edgecap::gpu
