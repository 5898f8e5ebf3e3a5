// Short sorted lists that a warp keeps in its registers, their merge across a block, and sums of
// exponentials that do not depend on how a row is split.
#pragma once

#include <climits>

#include "beam_state.cuh"

// GPUs with enough units for doubles sum in them. The emulation does as an Orin does.
#ifndef EDGECAP_FAST_DOUBLE
#if defined(__CUDA_ARCH__) && \
    (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
#define EDGECAP_FAST_DOUBLE 1
#else
#define EDGECAP_FAST_DOUBLE 0
#endif
#endif

namespace edgecap::gpu {

constexpr float kSmallest = -80.0f;  // exp of less, 2e-35, vanishes beside the 1 of the maximum

__device__ __forceinline__ float NegativeInfinity() { return __int_as_float(0xff800000); }

// NaN counts as -inf, +inf as the largest float.
__device__ __forceinline__ float Clean(float x) {
  return x == x ? (x < kLargest ? x : kLargest) : NegativeInfinity();
}

__device__ __forceinline__ bool Better(float key, int index, float other, int other_index) {
  return key > other || (key == other && index < other_index);
}

// exp(x - max) for x <= max, to 1e-12. The difference is exact, so that the parts of a row may each
// subtract their own maximum: rows of equal values, however permuted or split, must tie.
__device__ __forceinline__ double ExpDifference(float x, float max) {
  constexpr double kLog2e = 1.4426950408889634074;
  constexpr double kLn2High = 6.93147180369123816490e-01;
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves a whole number
  const double d = static_cast<double>(x) - static_cast<double>(max);
  if (!(d > kSmallest)) return 0.0;
  const double k = (d * kLog2e + kRound) - kRound;
  const double r = fma(-k, kLn2Low, fma(-k, kLn2High, d));
  double p = 1.0 / 3628800;
  p = fma(p, r, 1.0 / 362880);
  p = fma(p, r, 1.0 / 40320);
  p = fma(p, r, 1.0 / 5040);
  p = fma(p, r, 1.0 / 720);
  p = fma(p, r, 1.0 / 120);
  p = fma(p, r, 1.0 / 24);
  p = fma(p, r, 1.0 / 6);
  p = fma(p, r, 0.5);
  p = fma(p, r, 1.0);
  p = fma(p, r, 1.0);
  // k is -116 to 0: times 2^k is a change of the exponent.
  return p * __longlong_as_double(static_cast<long long>(1023 + static_cast<int>(k)) << 52);
}

// A number as the sum of two floats, the second below the first one's last place.
struct FloatPair {
  float high = 0.0f, low = 0.0f;
};

// 2^(j / 16) as pairs; one cache line.
static __device__ __align__(128) const float kSixteenths[32] = {
    0x1p+0f,          0x0p+0f,         0x1.0b5586p+0f,   0x1.9f3122p-25f,  0x1.172b84p+0f,
    -0x1.c15742p-27f, 0x1.2387a6p+0f,  0x1.ceac48p-25f,  0x1.306fep+0f,    0x1.4636e2p-25f,
    0x1.3dea64p+0f,   0x1.824684p-25f, 0x1.4bfdaep+0f,   -0x1.593abcp-25f, 0x1.5ab07ep+0f,
    -0x1.5bd5ecp-27f, 0x1.6a09e6p+0f,  0x1.9fcef4p-26f,  0x1.7a1148p+0f,   -0x1.829fdp-25f,
    0x1.8ace54p+0f,   0x1.15506ep-27f, 0x1.9c4918p+0f,   0x1.51f848p-27f,  0x1.ae89fap+0f,
    -0x1.a94b14p-26f, 0x1.c199bep+0f,  -0x1.3d56b2p-27f, 0x1.d5818ep+0f,   -0x1.822dbcp-27f,
    0x1.ea4afap+0f,   0x1.52486cp-27f};

// The same in floats, to 3e-11 near 1 and 3e-10 far below it: GPUs but the largest have a 32nd or
// 64th of the units for doubles.
__device__ __forceinline__ FloatPair ExpPair(float x, float max) {
  constexpr float kSixteenOverLn2 = 23.083120f;
  constexpr float kHigh = 0x1.62e43p-5f, kLow = -0x1.05c61p-33f;  // ln 2 / 16
  constexpr float kRound = 12582912.0f;                           // 1.5 * 2^23
  const float d = __fsub_rn(x, max);
  if (!(d > kSmallest)) return {};
  const float v = __fsub_rn(d, x);  // what d lost (Knuth's two-sum)
  const float lost = __fadd_rn(__fsub_rn(x, __fsub_rn(d, v)), __fsub_rn(-max, v));
  const float k = __fsub_rn(__fmaf_rn(d, kSixteenOverLn2, kRound), kRound);
  const float r = __fmaf_rn(-k, kHigh, d);  // exact, at most ln 2 / 32
  const float r_low = __fmaf_rn(-k, kLow, lost);
  float p = __fmaf_rn(r, 1.0f / 120, 1.0f / 24);
  p = __fmaf_rn(p, r, 1.0f / 6);
  p = __fmaf_rn(p, r, 0.5f);
  // exp(r + r_low) = 1 + r + rest
  const float rest = __fmaf_rn(__fmul_rn(r, r), p, __fmaf_rn(r_low, r, r_low));
  const int number = static_cast<int>(k);
  const float2 t = __ldg(reinterpret_cast<const float2*>(kSixteenths) + (number & 15));
  const float tr = __fmul_rn(t.x, r);
  float low = __fmaf_rn(t.x, rest, __fmaf_rn(t.x, r, -tr));
  low = __fadd_rn(low, __fmaf_rn(t.y, r, t.y));
  const float most = __fadd_rn(t.x, tr);
  low = __fadd_rn(__fadd_rn(__fsub_rn(t.x, most), tr), low);
  const float high = __fadd_rn(most, low);
  low = __fadd_rn(__fsub_rn(most, high), low);
  const float scale = __int_as_float(((number >> 4) + 127) << 23);  // 2^-116 to 1
  return {__fmul_rn(high, scale), __fmul_rn(low, scale)};
}

// How one lane sums exponentials: in doubles, or in pairs of floats.
template <bool kDoubles>
struct LaneSum {
  double sum = 0.0;

  __device__ __forceinline__ void Add(float x, float max) { sum += ExpDifference(x, max); }
  __device__ __forceinline__ void Rescale(float from, float to) { sum *= ExpDifference(from, to); }
  __device__ __forceinline__ double Total() const { return sum; }
};

template <>
struct LaneSum<false> {
  FloatPair sum;

  __device__ __forceinline__ void Add(float x, float max) {
    const FloatPair term = ExpPair(x, max);
    const float s = __fadd_rn(sum.high, term.high);
    const float v = __fsub_rn(s, sum.high);
    const float lost = __fadd_rn(__fsub_rn(sum.high, __fsub_rn(s, v)), __fsub_rn(term.high, v));
    sum = {s, __fadd_rn(sum.low, __fadd_rn(lost, term.low))};
  }
  __device__ __forceinline__ void Rescale(float from, float to) {
    const FloatPair factor = ExpPair(from, to);
    const float high = __fmul_rn(sum.high, factor.high);
    float low = __fmaf_rn(sum.high, factor.high, -high);
    low = __fmaf_rn(sum.high, factor.low, low);
    sum = {high, __fmaf_rn(sum.low, factor.high, low)};
  }
  __device__ __forceinline__ double Total() const {
    return static_cast<double>(sum.high) + static_cast<double>(sum.low);
  }
};

// The largest logit a lane saw, and the sum of exp(logit - largest).
template <bool kDoubles>
struct LaneSoft {
  float max = NegativeInfinity();
  LaneSum<kDoubles> sum;

  __device__ __forceinline__ void RaiseMax(float to) {
    if (!(to > max)) return;
    if (max > NegativeInfinity()) sum.Rescale(max, to);
    max = to;
  }
  // x <= max.
  __device__ __forceinline__ void Add(float x) {
    if (x > NegativeInfinity()) sum.Add(x, max);
  }
};

// The same for what warps and parts of a row come to, merged in any grouping.
struct SoftSum {
  float max = NegativeInfinity();
  double sum = 0.0;

  __device__ __forceinline__ void RaiseMax(float to) {
    if (!(to > max)) return;
    if (sum != 0.0) sum *= ExpDifference(max, to);
    max = to;
  }
  __device__ __forceinline__ void Merge(float other_max, double other_sum) {
    RaiseMax(other_max);
    if (other_sum != 0.0) sum += other_sum * ExpDifference(other_max, max);
  }
  // The warp's total, in every lane.
  __device__ __forceinline__ void ReduceWarp() {
    float all = max;
    for (int bits = 16; bits > 0; bits /= 2)
      all = fmaxf(all, __shfl_xor_sync(kFullWarp, all, bits));
    RaiseMax(all);
    for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(kFullWarp, sum, bits);
  }
};

// The best `capacity` (1 to 32) of what a warp is offered: lane i holds the i-th best. A lower
// index wins among equal keys. All lanes of the warp call every member together.
struct TopList {
  float key = NegativeInfinity();
  int index = INT_MAX;
  float value = 0.0f;  // goes along with its key
  float last_key = NegativeInfinity();
  int last_index = INT_MAX;        // the entry that must be beaten; INT_MAX: there is room
  float bar = NegativeInfinity();  // keys below it are known to find no place
  float left_out =
      NegativeInfinity();  // the largest key that was in the list, or offered, and is not
  int capacity;

  __device__ explicit TopList(int capacity_) : capacity(capacity_) {}

  __device__ __forceinline__ bool Wants(float k, int i) const {
    return k >= bar && Better(k, i, last_key, last_index);
  }

  __device__ __forceinline__ void Offer(bool offered, float k, int i, float v) {
    const int lane = threadIdx.x & 31;
    unsigned waiting = __ballot_sync(kFullWarp, offered && Wants(k, i));
    if (offered && !Wants(k, i)) left_out = fmaxf(left_out, k);
    while (waiting) {
      const int from = __ffs(static_cast<int>(waiting)) - 1;
      waiting &= waiting - 1;
      const float new_key = __shfl_sync(kFullWarp, k, from);
      const int new_index = __shfl_sync(kFullWarp, i, from);
      const float new_value = __shfl_sync(kFullWarp, v, from);
      if (!Wants(new_key, new_index)) {  // what came before it raised the bar
        left_out = fmaxf(left_out, new_key);
        continue;
      }
      const bool stays = Better(key, index, new_key, new_index);
      const int at = __popc(__ballot_sync(kFullWarp, stays));
      const float moved_key = __shfl_up_sync(kFullWarp, key, 1);
      const int moved_index = __shfl_up_sync(kFullWarp, index, 1);
      const float moved_value = __shfl_up_sync(kFullWarp, value, 1);
      if (!stays) {
        key = lane == at ? new_key : moved_key;
        index = lane == at ? new_index : moved_index;
        value = lane == at ? new_value : moved_value;
      }
      left_out = fmaxf(left_out, last_key);
      last_key = __shfl_sync(kFullWarp, key, capacity - 1);
      last_index = __shfl_sync(kFullWarp, index, capacity - 1);
    }
  }

  __device__ __forceinline__ float LargestLeftOut() const {
    float all = left_out;
    for (int bits = 16; bits > 0; bits /= 2)
      all = fmaxf(all, __shfl_xor_sync(kFullWarp, all, bits));
    return all;
  }
};

struct Candidate {
  float key;
  int index;  // INT_MAX: none
  float value;
};

// Shared memory for the lists of a block's warps.
template <int kWarps>
struct ListExchange {
  Candidate all[kWarps * 32];
  Candidate best[32];
  int count;       // how many of `best` there are
  float left_out;  // the largest key of `all` that is not among `best`; -inf where none is
};

// Merges the warps' lists: afterwards, and after its last barrier, `exchange.best` holds the best
// `capacity` of all in order. All threads of the block call it.
template <int kWarps>
__device__ void MergeLists(const TopList& list, ListExchange<kWarps>& exchange) {
  const int capacity = list.capacity;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  __syncthreads();  // readers of an earlier merge are through
  if (lane < capacity) exchange.all[warp * capacity + lane] = {list.key, list.index, list.value};
  if (threadIdx.x == 0) exchange.left_out = NegativeInfinity();
  __syncthreads();
  const int total = kWarps * capacity;
  const int mine = threadIdx.x;  // capacity <= 32, so a thread has one entry at most
  const bool real = mine < total && exchange.all[mine].index != INT_MAX;
  if (real) {
    const Candidate entry = exchange.all[mine];
    int rank = 0;
    for (int i = 0; i < total; ++i) {
      rank += Better(exchange.all[i].key, exchange.all[i].index, entry.key, entry.index);
    }
    if (rank < capacity) exchange.best[rank] = entry;
    if (rank == capacity) exchange.left_out = entry.key;
  }
  const int count = min(__syncthreads_count(real), capacity);
  if (threadIdx.x == 0) exchange.count = count;
  if (mine >= count && mine < capacity) exchange.best[mine] = {NegativeInfinity(), INT_MAX, 0.0f};
  __syncthreads();
}

}  // namespace edgecap::gpu
