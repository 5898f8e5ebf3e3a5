// The candidates of one image at one step: partial results -> scores -> the best 2K, in order.
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

}  // namespace edgecap::gpu
