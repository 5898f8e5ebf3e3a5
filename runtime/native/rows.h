// Passes over one row of V floats, written as plain loops that compilers turn into vector code
// (-O3 -fno-trapping-math). Rows are padded to whole blocks with -inf.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

// Wide vectors are picked when the library is loaded, so that one wheel serves every x86-64.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define EDGECAP_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EDGECAP_CLONES
#endif

namespace edgecap {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();
constexpr int kBlock = 64;  // floats

// Copies a row, NaN as -inf and +inf as the largest float, pads it with -inf to `padded` values
// and returns its largest value.
EDGECAP_CLONES static float CleanRow(const float* in, float* __restrict out, int count,
                                     int padded) {
  float best[kBlock];
  std::fill(best, best + kBlock, kNegInf);
  std::memcpy(out, in, count * sizeof(float));
  std::fill(out + count, out + padded, kNegInf);
  for (int i = 0; i < padded; i += kBlock) {
    for (int j = 0; j < kBlock; ++j) {
      float x = out[i + j];
      x = x == x ? x : kNegInf;
      x = x < FLT_MAX ? x : FLT_MAX;
      out[i + j] = x;
      best[j] = x > best[j] ? x : best[j];
    }
  }
  return *std::max_element(best, best + kBlock);
}

// Sum of exp(x - max) over whole blocks. In double, so that its float32 logarithm does not depend
// on the order of the vocabulary: equal rows, however permuted, must tie exactly.
// exp(d) = 2^k * exp(r) with |r| <= ln2 / 2, by Taylor's series to r^11: within 1e-14.
EDGECAP_CLONES static double ExpSum(const float* x, float max, int count) {
  constexpr double kLog2e = 1.4426950408889634074;
  constexpr double kLn2High = 6.93147180369123816490e-01;
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves a whole number
  constexpr int kLanes = 8;
  double sum[kLanes] = {};
  double fraction[kBlock];
  double shifted[kBlock];
  uint64_t bits[kBlock];
  uint64_t exponent[kBlock];
  for (int i = 0; i < count; i += kBlock) {
    for (int j = 0; j < kBlock; ++j) {
      double d = x[i + j] - max;
      d = d > -700.0 ? d : -700.0;  // exp(-700) vanishes beside the 1 of the maximum
      shifted[j] = d * kLog2e + kRound;
      const double k = shifted[j] - kRound;
      const double r = (d - k * kLn2High) - k * kLn2Low;
      const double r2 = r * r;
      const double r4 = r2 * r2;
      const double low = (1.0 + r) + r2 * (1.0 / 2 + r * (1.0 / 6));
      const double mid = (1.0 / 24 + r * (1.0 / 120)) + r2 * (1.0 / 720 + r * (1.0 / 5040));
      const double high =
          (1.0 / 40320 + r * (1.0 / 362880)) + r2 * (1.0 / 3628800 + r * (1.0 / 39916800));
      fraction[j] = low + r4 * (mid + r4 * high);
    }
    std::memcpy(bits, fraction, sizeof(bits));
    std::memcpy(exponent, shifted, sizeof(exponent));
    for (int j = 0; j < kBlock; ++j) bits[j] += exponent[j] << 52;  // times 2^k
    std::memcpy(fraction, bits, sizeof(bits));
    for (int j = 0; j < kBlock; j += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) sum[lane] += fraction[j + lane];
    }
  }
  double total = 0.0;
  for (const double part : sum) total += part;
  return total;
}

EDGECAP_CLONES static void Subtract(float* x, float max, float log_sum, int count) {
  for (int i = 0; i < count; ++i) x[i] = (x[i] - max) - log_sum;
}

// First index at or after `from`, by whole blocks, whose block holds a sum above the threshold.
EDGECAP_CLONES static int NextBlockAbove(const float* x, float add, float threshold, int from,
                                         int count) {
  for (int i = from; i < count; i += kBlock) {
    int any = 0;
    for (int j = 0; j < kBlock; ++j) any |= (x[i + j] + add > threshold);
    if (any) return i;
  }
  return count;
}

inline size_t Padded(int vocab) {
  return (static_cast<size_t>(vocab) + kBlock - 1) / kBlock * kBlock;
}

}  // namespace edgecap
