#include "step_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "step_clones.h"
#include "step_kernels.h"

namespace edgecap {
namespace {

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

// In a fixed order, whatever the width of vectors.
EDGECAP_INLINE float Total(const float* lanes) {
  float eight[8];
  for (int j = 0; j < 8; ++j) eight[j] = lanes[j] + lanes[j + 8];
  float four[4];
  for (int j = 0; j < 4; ++j) four[j] = eight[j] + eight[j + 4];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

EDGECAP_INLINE float SumOf(const float* x, int count) {
  float lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += x[i + j];
  }
  for (int j = 0; i + j < count; ++j) lanes[j] += x[i + j];
  return Total(lanes);
}

EDGECAP_INLINE float SquaresOf(const float* x, int count, float mean) {
  float lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const float d = x[i + j] - mean;
      lanes[j] += d * d;
    }
  }
  for (int j = 0; i + j < count; ++j) lanes[j] += (x[i + j] - mean) * (x[i + j] - mean);
  return Total(lanes);
}

EDGECAP_STEP_CLONES void Relu(float* x, int count) {
  for (int i = 0; i < count; ++i) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

EDGECAP_STEP_CLONES void Gelu(float* x, int count) {
  for (int i = 0; i < count; ++i) x[i] = 0.5f * x[i] * (1.0f + Erf(x[i] * 0.70710678118654752f));
}

EDGECAP_STEP_CLONES void GeluTanh(float* x, int count) {
  for (int i = 0; i < count; ++i) {
    const float inner = x[i] + 0.044715f * (x[i] * x[i] * x[i]);
    x[i] = 0.5f * x[i] * (1.0f + Tanh(0.79788456080286536f * inner));
  }
}

EDGECAP_STEP_CLONES void Tanhs(float* x, int count) {
  for (int i = 0; i < count; ++i) x[i] = Tanh(x[i]);
}

EDGECAP_STEP_CLONES void Scale(const int32_t* sums, const float* scales, float row_scale,
                               const float* bias, int count, float* out) {
  for (int i = 0; i < count; ++i) {
    out[i] = static_cast<float>(sums[i]) * (scales[i] * row_scale) + bias[i];
  }
}

EDGECAP_STEP_CLONES void Scale(const float* sums, const float* scales, const float* bias, int count,
                               float* out) {
  if (scales == nullptr) {
    for (int i = 0; i < count; ++i) out[i] = sums[i] + bias[i];
  } else {
    for (int i = 0; i < count; ++i) out[i] = sums[i] * scales[i] + bias[i];
  }
}

EDGECAP_STEP_CLONES void Add(const float* x, int count, float* out) {
  for (int i = 0; i < count; ++i) out[i] += x[i];
}

void End(float* value, int count, Finish finish, float* out) {
  Activate(finish.activation, value, count);
  if (finish.add) {
    Add(value, count, out);
  } else {
    std::copy(value, value + count, out);
  }
}

}  // namespace

EDGECAP_STEP_CLONES void LayerNorm(const float* x, int count, const float* weight,
                                   const float* bias, float eps, float* out) {
  const float mean = SumOf(x, count) / static_cast<float>(count);
  const float variance = SquaresOf(x, count, mean) / static_cast<float>(count);
  const float inverse = 1.0f / std::sqrt(variance + eps);
  for (int i = 0; i < count; ++i) out[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

void Activate(Activation kind, float* x, int count) {
  switch (kind) {
    case Activation::kNone:
      return;
    case Activation::kRelu:
      return Relu(x, count);
    case Activation::kGelu:
      return Gelu(x, count);
    case Activation::kGeluTanh:
      return GeluTanh(x, count);
    case Activation::kTanh:
      return Tanhs(x, count);
  }
}

EDGECAP_STEP_CLONES void Softmax(float* x, int count, float scale) {
  float largest = x[0] * scale;
  for (int i = 0; i < count; ++i) {
    x[i] *= scale;
    largest = x[i] > largest ? x[i] : largest;
  }
  for (int i = 0; i < count; ++i) x[i] = Exp(x[i] - largest);
  const float inverse = 1.0f / SumOf(x, count);
  for (int i = 0; i < count; ++i) x[i] *= inverse;
}

EDGECAP_STEP_CLONES float Dot(const float* a, const float* b, int count) {
  float lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  }
  for (int j = 0; i + j < count; ++j) lanes[j] += a[i + j] * b[i + j];
  return Total(lanes);
}

EDGECAP_STEP_CLONES void AddScaled(const float* x, float share, int count, float* out) {
  for (int i = 0; i < count; ++i) out[i] += x[i] * share;
}

void FinishRow(const int32_t* sums, const float* scales, float row_scale, const float* bias,
               int count, Finish finish, float* out) {
  float value[kTileOutputs];
  Scale(sums, scales, row_scale, bias, count, value);
  End(value, count, finish, out);
}

void FinishRow(const float* sums, const float* scales, const float* bias, int count, Finish finish,
               float* out) {
  float value[kTileOutputs];
  Scale(sums, scales, bias, count, value);
  End(value, count, finish, out);
}

}  // namespace edgecap
