// What the kernels of a decoding step share: weights of 32, 16 or 8 bits as 16-byte loads, where
// the inputs of a row come from, activations.
#pragma once

#include <cstdint>
#include <cstring>

#include "beam_state.cuh"

namespace edgecap::gpu {

constexpr int kStepThreads = 256;
constexpr int kStepWarps = kStepThreads / 32;
constexpr int kMaxRows = 64;
constexpr int kMaxSegments = 3;
constexpr int kRowBytes = 128;  // rows of weights are padded to whole cache lines

// 16 bytes of weights as floats. kVector is how many there are.
template <typename W>
struct Load;

template <>
struct Load<float> {
  static constexpr int kVector = 4;
  static __device__ __forceinline__ void Widen(const uint4& raw, float (&v)[kVector]) {
    v[0] = __uint_as_float(raw.x);
    v[1] = __uint_as_float(raw.y);
    v[2] = __uint_as_float(raw.z);
    v[3] = __uint_as_float(raw.w);
  }
};

template <>
struct Load<__half> {
  static constexpr int kVector = 8;
  static __device__ __forceinline__ void Widen(const uint4& raw, float (&v)[kVector]) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      __half2 pair;
      memcpy(&pair, &words[i], sizeof(pair));
      const float2 wide = __half22float2(pair);
      v[2 * i] = wide.x;
      v[2 * i + 1] = wide.y;
    }
  }
};

template <>
struct Load<int8_t> {
  static constexpr int kVector = 16;
  static __device__ __forceinline__ void Widen(const uint4& raw, float (&v)[kVector]) {
    const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // A byte plus 128 in the mantissa of 2^23: cheaper than four conversions.
      const unsigned shifted = words[i] ^ 0x80808080u;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        v[4 * i + j] = __uint_as_float(0x4B000000u | (shifted >> (8 * j) & 0xffu)) - 8388736.0f;
      }
    }
  }
};

__device__ __forceinline__ float Wide(float x) { return x; }
__device__ __forceinline__ float Wide(__half x) { return __half2float(x); }
__device__ __forceinline__ float Wide(int8_t x) { return static_cast<float>(x); }
__device__ __forceinline__ void Narrow(float* to, float x) { *to = x; }
__device__ __forceinline__ void Narrow(__half* to, float x) { *to = __float2half_rn(x); }

// Where a part of a product's input comes from. A state has two sides [2, R, width]: step t reads
// side t % 2 of the parent's row and writes the other.
enum class From : int { kWords = 0, kBuffer = 1, kParentState = 2, kState = 3 };

struct Segment {
  From from;
  int width;
  const float* data;
};

enum class Activation : int { kNone = 0, kRelu = 1, kGelu = 2, kGeluTanh = 3, kTanh = 4 };

__device__ __forceinline__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ __forceinline__ float Activate(Activation kind, float x) {
  switch (kind) {
    case Activation::kRelu:
      return x > 0.0f ? x : 0.0f;
    case Activation::kGelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::kTanh:
      return tanhf(x);
    default:
      return x;
  }
}

// Where the search stands, as far as a step needs it. Rows are R = B * K.
struct StepView {
  const int* tokens;           // [R]
  const int* parents;          // [R]
  const BeamControl* control;  // launches do nothing once it says that the search is over
  const uint8_t* origin;       // [R, T]
  int batch, beams, positions;
};

// The embedding: token's row (times its scale) plus the row of its place.
template <typename W>
struct Words {
  const W* table;       // [vocab, stride]
  const float* scale;   // [vocab], int8 alone
  const float* places;  // [places, width]; null without positions
  const float* first;   // [B, width] in place of the first token's words; null without
  int vocab, width, stride, offset, places_count;
};

template <typename W>
__device__ __forceinline__ float WordAt(const Words<W>& words, const StepView& step, int row,
                                        int k) {
  const int position = step.control->position;
  float value;
  if (words.first != nullptr && position == 0) {
    value = words.first[row / step.beams * words.width + k];
  } else {
    const int token = min(max(step.tokens[row], 0), words.vocab - 1);
    value = Wide(words.table[static_cast<size_t>(token) * words.stride + k]);
    if (words.scale != nullptr) value *= words.scale[token];
  }
  if (words.places != nullptr) {
    const int place = min(position + words.offset, words.places_count - 1);
    value += words.places[place * words.width + k];
  }
  return value;
}

__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x += __shfl_xor_sync(kFullWarp, x, mask);
  return x;
}

__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x = fmaxf(x, __shfl_xor_sync(kFullWarp, x, mask));
  return x;
}

}  // namespace edgecap::gpu
