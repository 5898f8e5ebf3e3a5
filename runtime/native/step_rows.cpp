#include "step_rows.h"

#include <algorithm>
#include <cmath>

#include "step_clones.h"
#include "step_math.h"

namespace edgecap {
namespace {

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
