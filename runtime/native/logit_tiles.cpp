// Plain loops that compilers turn into vector code (-O3 -fno-trapping-math).
#include "logit_tiles.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "step_clones.h"
#include "step_math.h"

namespace edgecap {
namespace {

constexpr float kNegInf = -std::numeric_limits<float>::infinity();
constexpr float kLowest = -700.0f;  // exp of less vanishes beside that of -kWide
constexpr float kWide = 600.0f;     // exp(kWide) times any vocabulary is a double

// The largest of a tile, step by step: loops over loops would not become vector code.
EDGECAP_INLINE float Largest(const float* x) {
  float sixteen[16];
  float eight[8];
  float four[4];
  for (int j = 0; j < 16; ++j) sixteen[j] = x[j] > kNegInf ? x[j] : kNegInf;
  for (int j = 0; j < 16; ++j) sixteen[j] = x[j + 16] > sixteen[j] ? x[j + 16] : sixteen[j];
  for (int j = 0; j < 16; ++j) sixteen[j] = x[j + 32] > sixteen[j] ? x[j + 32] : sixteen[j];
  for (int j = 0; j < 16; ++j) sixteen[j] = x[j + 48] > sixteen[j] ? x[j + 48] : sixteen[j];
  for (int j = 0; j < 8; ++j) {
    eight[j] = sixteen[j] > sixteen[j + 8] ? sixteen[j] : sixteen[j + 8];
  }
  for (int j = 0; j < 4; ++j) four[j] = eight[j] > eight[j + 4] ? eight[j] : eight[j + 4];
  const float even = four[0] > four[2] ? four[0] : four[2];
  const float odd = four[1] > four[3] ? four[1] : four[3];
  return even > odd ? even : odd;
}

// Not against a maximum, which would not be known yet: logits of a row are seldom past +-kWide, and
// SumRow helps those that are. exp(x) = 2^k * exp(r) with |r| <= ln2 / 2 and the polynomial that
// meets exp(r) at Chebyshev's nodes: within 1e-13.
EDGECAP_STEP_CLONES LogitTile SumWhole(const float* x) {
  constexpr double kLog2e = 1.4426950408889634074;
  constexpr double kLn2 = 0.69314718055994530942;
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it leaves a whole number
  const float max = Largest(x);
  float clipped[kLogitTile];
  for (int j = 0; j < kLogitTile; ++j) clipped[j] = x[j] > kLowest ? x[j] : kLowest;
  double shifted[kLogitTile];
  double power[kLogitTile];
  for (int j = 0; j < kLogitTile; ++j) {
    const double d = clipped[j];
    shifted[j] = d * kLog2e + kRound;
    const double r = d - (shifted[j] - kRound) * kLn2;
    const double r2 = r * r;
    const double r4 = r2 * r2;
    const double low = (1.0 + r) + r2 * (0.4999999999995507 + r * 0.16666666666662583);
    const double mid = (0.041666666786337556 + r * 0.008333333344209506) +
                       r2 * (0.001388883909064138 + r * 0.00019841224581544105);
    const double high = 2.4867883453521802e-05 + r * 2.761757684835413e-06;
    power[j] = low + r4 * (mid + r4 * high);
  }
  uint64_t bits[kLogitTile];
  uint64_t exponent[kLogitTile];
  std::memcpy(bits, power, sizeof(bits));
  std::memcpy(exponent, shifted, sizeof(exponent));
  for (int j = 0; j < kLogitTile; ++j) bits[j] += exponent[j] << 52;  // times 2^k
  std::memcpy(power, bits, sizeof(bits));
  double sum[8] = {};
  for (int i = 0; i < kLogitTile; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += power[i + j];
  }
  const double total =
      ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
  return {total, std::min(max, FLT_MAX)};
}

}  // namespace

LogitTile SumTile(const float* logits, int count) {
  if (count == kLogitTile) return SumWhole(logits);
  float whole[kLogitTile];
  std::fill(std::copy(logits, logits + count, whole), whole + kLogitTile, kNegInf);
  return SumWhole(whole);
}

RowSum SumRow(const LogitTile* tiles, std::ptrdiff_t stride, const float* logits, int vocab) {
  const int count = LogitTiles(vocab);
  constexpr int kChains = 4;  // one chain of additions would wait for itself
  double sums[kChains] = {};
  float largest[kChains] = {kNegInf, kNegInf, kNegInf, kNegInf};
  for (int tile = 0; tile < count; tile += kChains) {
    for (int j = 0; j < kChains && tile + j < count; ++j, tiles += stride) {
      sums[j] += tiles->sum;
      largest[j] = std::max(largest[j], tiles->max);
    }
  }
  const float max = *std::max_element(largest, largest + kChains);
  if (max == kNegInf) return {0.0f, 0.0f};
  double log_sum = std::log((sums[0] + sums[2]) + (sums[1] + sums[3])) - max;
  if (!(max <= kWide && max >= -kWide)) {
    double total = 0.0;
    for (int i = 0; i < vocab; ++i) {
      // NaN fails the comparison, and +inf counts as the largest float.
      const double d = static_cast<double>(std::min(logits[i], FLT_MAX)) - max;
      if (d > kLowest) total += std::exp(d);
    }
    log_sum = std::log(total);
  }
  return {max, static_cast<float>(std::max(log_sum, 0.0))};
}

EDGECAP_STEP_CLONES void LogProbs(const float* logits, int count, RowSum sum, float* out) {
  for (int i = 0; i < count; ++i) {
    float x = logits[i];
    x = x == x ? x : kNegInf;
    x = x < FLT_MAX ? x : FLT_MAX;
    out[i] = (x - sum.max) - sum.log_sum;
  }
}

EDGECAP_STEP_CLONES bool AnyAbove(const float* x, float add, float threshold) {
  int any = 0;
  for (int j = 0; j < kLogitTile; ++j) any |= x[j] + add > threshold;
  return any != 0;
}

}  // namespace edgecap
