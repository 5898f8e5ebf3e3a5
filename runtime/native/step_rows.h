// What a decoder step does with rows of floats besides products. Sums run in a fixed order, so
// that every processor gives the same bits.
#pragma once

#include <cstdint>

namespace edgecap {

enum class Activation : int { kNone = 0, kRelu = 1, kGelu = 2, kGeluTanh = 3, kTanh = 4 };

// out = (x - mean) / sqrt(variance + eps) * weight + bias; out may be x.
void LayerNorm(const float* x, int count, const float* weight, const float* bias, float eps,
               float* out);

void Activate(Activation kind, float* x, int count);

// Of scale * x, in place; count >= 1.
void Softmax(float* x, int count, float scale);

float Dot(const float* a, const float* b, int count);

// out += share * x
void AddScaled(const float* x, float share, int count, float* out);

// What a tile of products becomes: value * scale + bias, activated, on top of out where `add`.
struct Finish {
  Activation activation = Activation::kNone;
  bool add = false;
};
void FinishRow(const int32_t* sums, const float* scales, float row_scale, const float* bias,
               int count, Finish finish, float* out);
// scales : null for none
void FinishRow(const float* sums, const float* scales, const float* bias, int count, Finish finish,
               float* out);

}  // namespace edgecap
