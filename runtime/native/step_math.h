// Functions of single numbers that loops over vectors inline, and sums in a fixed order.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "step_kernels.h"

namespace edgecap {

#define EDGECAP_INLINE static inline __attribute__((always_inline))

// exp(x) for x <= 0: 2^k * exp(r) with |r| <= ln2 / 2 and the minimax polynomial of Cephes' expf,
// within 2 units in the last place.
EDGECAP_INLINE float Exp(float x) {
  constexpr float kLog2e = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  x = x > -87.0f ? x : -87.0f;
  const float shifted = x * kLog2e + kRound;
  const float k = shifted - kRound;
  const float r = (x - k * kLn2High) - k * kLn2Low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  int32_t exponent;
  int32_t bits;
  std::memcpy(&exponent, &shifted, sizeof(exponent));
  std::memcpy(&bits, &p, sizeof(bits));
  // Unsigned: what is shifted out above the exponent does not matter.
  bits =
      static_cast<int32_t>(static_cast<uint32_t>(bits) + (static_cast<uint32_t>(exponent) << 23));
  std::memcpy(&p, &bits, sizeof(p));
  return p;
}

EDGECAP_INLINE float Tanh(float x) {
  const float e = Exp(-2.0f * std::fabs(x));
  const float size = (1.0f - e) / (1.0f + e);
  return std::copysign(size, x);
}

// Abramowitz and Stegun 7.1.26, within 1.5e-7.
EDGECAP_INLINE float Erf(float x) {
  const float size = std::fabs(x);
  const float t = 1.0f / (1.0f + 0.3275911f * size);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float value = 1.0f - p * t * Exp(-size * size);
  return std::copysign(value, x);
}

EDGECAP_INLINE float Sigmoid(float x) {
  const float e = Exp(-std::fabs(x));
  return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}

// In a fixed order, whatever the width of vectors.
EDGECAP_INLINE float Total(const float* lanes) {
  float eight[8];
  for (int j = 0; j < 8; ++j) eight[j] = lanes[j] + lanes[j + 8];
  float four[4];
  for (int j = 0; j < 4; ++j) four[j] = eight[j] + eight[j + 4];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

}  // namespace edgecap
