// The first stage of a beam step: one pass over a row of logits, split into parts. Each part comes
// to a partial result (PartialHead and 2K entries, see beam_state.cuh); beam_select.cuh goes on.
//
// A kernel that has logits in registers or shared memory, such as a fused vocabulary projection,
// uses WarpPartial and the Finish functions with its own values instead of WritePartial.
#pragma once

#include "beam_history.cuh"

namespace edgecap::gpu {

constexpr int kGroup = 8;  // logits that a lane takes at once

// One warp's view of its share of a row. All lanes call every member together.
struct WarpPartial {
  LaneSoft<EDGECAP_FAST_DOUBLE> lane_soft;
  SoftSum soft;  // the warp's, after Reduce
  TopList list;

  __device__ explicit WarpPartial(int beams) : list(2 * beams) {}

  // `count` cleaned logits per lane, -inf where the lane has none; token j of the lane is
  // first_token + j.
  template <int kCount>
  __device__ __forceinline__ void Add(const float (&x)[kCount], int first_token,
                                      const Touched& touched) {
    float largest = x[0];
    int largest_at = 0;
#pragma unroll
    for (int j = 1; j < kCount; ++j) {
      if (x[j] > largest) {
        largest = x[j];
        largest_at = j;
      }
    }
    lane_soft.RaiseMax(largest);
    if (list.last_index == INT_MAX) RaiseBar(largest, first_token + largest_at, touched);
    unsigned waiting = 0;  // which of the lane's logits may find a place
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (x[j] > NegativeInfinity() && list.Wants(x[j], first_token + j)) {
        waiting |= 1u << j;
      } else {
        list.left_out = fmaxf(list.left_out, x[j]);
      }
    }
    while (__any_sync(kFullWarp, waiting != 0)) {
      const int at = __ffs(static_cast<int>(waiting)) - 1;
      waiting &= waiting - 1;
      float key = NegativeInfinity();
#pragma unroll
      for (int j = 0; j < kCount; ++j) key = j == at ? x[j] : key;
      list.Offer(at >= 0 && !touched(first_token + at), key, first_token + at, 0.0f);
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j) lane_soft.Add(x[j]);
  }

  // The warp's sums, in every lane.
  __device__ __forceinline__ void Reduce() {
    soft = {lane_soft.max, lane_soft.sum.Total()};
    soft.ReduceWarp();
  }

 private:
  // While the list is not full: nothing below the capacity-th best of the lanes' largest can stay.
  __device__ __forceinline__ void RaiseBar(float largest, int token, const Touched& touched) {
    if (largest > NegativeInfinity() && touched(token)) largest = NegativeInfinity();
    const int lane = threadIdx.x & 31;
    int rank = 0;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const float other = __shfl_sync(kFullWarp, largest, i);
      rank += other > largest || (other == largest && i < lane);
    }
    const unsigned holder = __ballot_sync(kFullWarp, rank == list.capacity - 1);
    const float bar = __shfl_sync(kFullWarp, largest, __ffs(static_cast<int>(holder)) - 1);
    list.bar = fmaxf(list.bar, bar);
  }
};

// Writes the partial result of one warp alone.
__device__ inline void FinishWarp(const BeamView& v, int row, int part, WarpPartial& partial) {
  const int lane = threadIdx.x & 31;
  partial.Reduce();
  const float next = partial.list.LargestLeftOut();
  PartialHead* head = PartialAt(v, row, part);
  if (lane == 0) *head = {partial.soft.max, next, partial.soft.sum};
  if (lane < partial.list.capacity) {
    const bool real = partial.list.index != INT_MAX;
    EntriesOf(head)[lane] = {partial.list.key, real ? partial.list.index : -1};
  }
}

template <int kWarps>
struct PartialExchange {
  ListExchange<kWarps> lists;
  float max[kWarps], next[kWarps];
  double sum[kWarps];
};

// Merges the warps of a block to one partial result and writes it. All threads call it.
template <int kWarps>
__device__ void FinishBlock(const BeamView& v, int row, int part, WarpPartial& partial,
                            PartialExchange<kWarps>& exchange) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  partial.Reduce();
  const float warp_next = partial.list.LargestLeftOut();
  if (lane == 0) {
    exchange.max[warp] = partial.soft.max;
    exchange.sum[warp] = partial.soft.sum;
    exchange.next[warp] = warp_next;
  }
  MergeLists<kWarps>(partial.list, exchange.lists);
  PartialHead* head = PartialAt(v, row, part);
  if (threadIdx.x == 0) {
    SoftSum soft;
    float next = exchange.lists.left_out;
    for (int i = 0; i < kWarps; ++i) {
      soft.Merge(exchange.max[i], exchange.sum[i]);
      next = fmaxf(next, exchange.next[i]);
    }
    *head = {soft.max, next, soft.sum};
  }
  const int me = threadIdx.x;
  if (me < partial.list.capacity) {
    const Candidate entry = exchange.lists.best[me];
    EntriesOf(head)[me] = {entry.key, entry.index == INT_MAX ? -1 : entry.index};
  }
}

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }

// A row of logits in memory. Groups of kGroup lie on addresses that vector loads can take, wherever
// the row starts: group 0 may begin before token 0.
template <typename T>
struct RowLogits {
  const T* row;
  int vocab;
  int ahead;  // elements from the start of group 0 to token 0

  __device__ RowLogits(const T* row_, int vocab_)
      : row(row_),
        vocab(vocab_),
        ahead(static_cast<int>(reinterpret_cast<uintptr_t>(row_) / sizeof(T) % kGroup)) {}

  __device__ __forceinline__ float At(int token) const { return Clean(ToFloat(row[token])); }

  __device__ __forceinline__ void Load(int group, float (&x)[kGroup]) const {
    const int first = group * kGroup - ahead;
    if (first >= 0 && first + kGroup <= vocab) {
      constexpr int kLoads = kGroup * sizeof(T) / sizeof(uint4);
      union {
        uint4 vectors[kLoads];
        T values[kGroup];
      } raw;
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        raw.vectors[i] = __ldcs(reinterpret_cast<const uint4*>(row + first) + i);
      }
#pragma unroll
      for (int j = 0; j < kGroup; ++j) x[j] = Clean(ToFloat(raw.values[j]));
      return;
    }
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const int token = first + j;
      x[j] = token >= 0 && token < vocab ? At(token) : NegativeInfinity();
    }
  }
};

// Groups of a part, whatever the row's alignment.
__host__ __device__ inline int GroupsPerPart(int vocab, int parts) {
  const int groups = (vocab + 2 * kGroup - 2) / kGroup;
  return (groups + parts - 1) / parts;
}

// The partial result of one part of a row in memory, and the raw logits of the row's own tokens in
// it where a penalty wants them. All threads of the block call it.
template <int kWarps, typename T>
__device__ void WritePartial(const BeamView& v, int row, int part, int position,
                             const RowLogits<T>& logits, int* sequence,
                             PartialExchange<kWarps>& exchange) {
  const Touched touched = LoadTouched(v, row, position, sequence, threadIdx.x, kWarps * 32);
  const int per_part = GroupsPerPart(v.shape.vocab, v.shape.parts);
  const int first = part * per_part;
  const int end = min(first + per_part, (v.shape.vocab + logits.ahead + kGroup - 1) / kGroup);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  if (touched.length > 0) __syncthreads();

  if (touched.penalises) {
    const int low = first * kGroup - logits.ahead;
    const int high = min(end * kGroup - logits.ahead, v.shape.vocab);
    for (int i = threadIdx.x; i < touched.length; i += kWarps * 32) {
      const int token = sequence[i];
      if (token >= low && token < high) PenalisedOf(v, row)[i] = logits.At(token);
    }
  }

  WarpPartial partial(v.shape.beams);
  float ahead[kGroup];  // loaded while the group before it is worked on
  const auto load = [&](int base) {
    if (base + lane < end) {
      logits.Load(base + lane, ahead);
    } else {
#pragma unroll
      for (int j = 0; j < kGroup; ++j) ahead[j] = NegativeInfinity();
    }
  };
  int base = first + warp * 32;
  if (base < end) load(base);
  while (base < end) {
    float x[kGroup];
#pragma unroll
    for (int j = 0; j < kGroup; ++j) x[j] = ahead[j];
    const int token = (base + lane) * kGroup - logits.ahead;
    base += kWarps * 32;
    if (base < end) load(base);
    partial.Add(x, token, touched);
  }
  FinishBlock<kWarps>(v, row, part, partial, exchange);
}

}  // namespace edgecap::gpu
