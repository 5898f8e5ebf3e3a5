#include "encode_rows.h"

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <type_traits>

#include "step_clones.h"

namespace edgecap {
namespace {

typedef float Floats __attribute__((vector_size(64)));

#define EDGECAP_INLINE static inline __attribute__((always_inline))

// 1.5 * 2^23: adding it rounds a float to a whole number in its low bits.
constexpr float kRound = 12582912.0f;

enum class Residual { kNone, kFloats, kBytes };

// One place of a tile; all that differs between convolutions is known to the compiler.
template <typename Sum, Residual kResidual, bool kBias, bool kBytes>
EDGECAP_INLINE void EndPlace(const Sum* __restrict sums, float row_scale, int count, int at,
                             const TileEnd& end) {
  const float* __restrict scales = end.scales;
  const float* __restrict bias = end.bias;
  const float* __restrict residual = end.residual + (kResidual == Residual::kFloats ? at : 0);
  const int8_t* __restrict whole = end.residual_bytes + (kResidual == Residual::kBytes ? at : 0);
  const float residual_scale = end.residual_scale.scale;
  const float residual_shift = -residual_scale * static_cast<float>(end.residual_scale.zero);
  // Round to nearest, ties to even, as QuantizeLinear does; a NaN becomes the smallest.
  const float zero = static_cast<float>(end.scale.zero);
  const float inverse = kBytes ? 1.0f / end.scale.scale : 1.0f;
  const float least = kBytes ? -128.0f - zero : -FLT_MAX;
  const float low = end.relu ? std::max(0.0f, least) : least;
  const float high = 127.0f - zero;
  const int32_t shift = end.scale.zero - 0x4b400000;
  int8_t* __restrict bytes = end.bytes + (kBytes ? at : 0);
  float* __restrict floats = end.floats + (kBytes ? 0 : at);
  for (int i = 0; i < count; ++i) {
    float value = static_cast<float>(sums[i]);
    if constexpr (std::is_same_v<Sum, int32_t>) value *= scales[i] * row_scale;
    if constexpr (kBias) value += bias[i];
    if constexpr (kResidual == Residual::kFloats) value += residual[i];
    if constexpr (kResidual == Residual::kBytes) {
      value += static_cast<float>(whole[i]) * residual_scale + residual_shift;
    }
    if constexpr (kBytes) {
      float scaled = value * inverse;
      scaled = scaled > low ? scaled : low;
      scaled = scaled < high ? scaled : high;
      const float shifted = scaled + kRound;
      int32_t bits;
      std::memcpy(&bits, &shifted, sizeof(bits));
      bytes[i] = static_cast<int8_t>(bits + shift);
    } else {
      floats[i] = value > low ? value : low;
    }
  }
}

template <typename Sum, Residual kResidual, bool kBytes>
EDGECAP_INLINE void EndPlaces(const Sum* sums, int rows, int count, int stride,
                              const TileEnd& end) {
  for (int r = 0; r < rows; ++r) {
    const Sum* from = sums + r * kTileOutputs;
    const float row_scale = end.row_scales == nullptr ? 1.0f : end.row_scales[r];
    if (end.bias == nullptr) {
      EndPlace<Sum, kResidual, false, kBytes>(from, row_scale, count, r * stride, end);
    } else if (count == kTileOutputs) {  // a length that the compiler knows
      EndPlace<Sum, kResidual, true, kBytes>(from, row_scale, kTileOutputs, r * stride, end);
    } else {
      EndPlace<Sum, kResidual, true, kBytes>(from, row_scale, count, r * stride, end);
    }
  }
}

template <typename Sum>
EDGECAP_INLINE void End(const Sum* sums, int rows, int count, int stride, const TileEnd& end) {
  if (end.bytes != nullptr) {
    if (end.residual != nullptr) {
      EndPlaces<Sum, Residual::kFloats, true>(sums, rows, count, stride, end);
    } else if (end.residual_bytes != nullptr) {
      EndPlaces<Sum, Residual::kBytes, true>(sums, rows, count, stride, end);
    } else {
      EndPlaces<Sum, Residual::kNone, true>(sums, rows, count, stride, end);
    }
  } else if (end.residual != nullptr) {
    EndPlaces<Sum, Residual::kFloats, false>(sums, rows, count, stride, end);
  } else if (end.residual_bytes != nullptr) {
    EndPlaces<Sum, Residual::kBytes, false>(sums, rows, count, stride, end);
  } else {
    EndPlaces<Sum, Residual::kNone, false>(sums, rows, count, stride, end);
  }
}

EDGECAP_STEP_CLONES void EndWhole(const int32_t* sums, int rows, int count, int stride,
                                  const TileEnd& end) {
  End(sums, rows, count, stride, end);
}

EDGECAP_STEP_CLONES void EndFloats(const float* sums, int rows, int count, int stride,
                                   const TileEnd& end) {
  End(sums, rows, count, stride, end);
}

// kBlocks * 16 channels at once.
template <int kBlocks>
EDGECAP_INLINE void Channels(const Convolution& c, const float* corner, int from, int to, int left,
                             int right, int first, float* out) {
  const int channels = c.in.channels;
  Floats sums[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    std::memcpy(&sums[b], c.bias.data() + first + b * kLanes, sizeof(Floats));
  }
  for (int y = from; y < to; ++y) {
    const float* row = corner + static_cast<ptrdiff_t>(y) * c.in.width * channels + first;
    const float* taps = c.taps.data() + static_cast<size_t>(y) * c.kernel_width * channels + first;
    for (int x = left; x < right; ++x) {
      for (int b = 0; b < kBlocks; ++b) {
        Floats value;
        Floats tap;
        std::memcpy(&value, row + static_cast<ptrdiff_t>(x) * channels + b * kLanes, sizeof(value));
        std::memcpy(&tap, taps + static_cast<size_t>(x) * channels + b * kLanes, sizeof(tap));
        sums[b] += value * tap;
      }
    }
  }
  for (int b = 0; b < kBlocks; ++b) {
    std::memcpy(out + first + b * kLanes, &sums[b], sizeof(Floats));
  }
}

}  // namespace

void EndTile(const int32_t* sums, int rows, int count, int stride, const TileEnd& end) {
  EndWhole(sums, rows, count, stride, end);
}

void EndTile(const float* sums, int rows, int count, int stride, const TileEnd& end) {
  EndFloats(sums, rows, count, stride, end);
}

EDGECAP_STEP_CLONES void WidenBytes(const int8_t* bytes, int count, MapBytes scale, float* out) {
  const float shift = -scale.scale * static_cast<float>(scale.zero);
  for (int i = 0; i < count; ++i) out[i] = static_cast<float>(bytes[i]) * scale.scale + shift;
}

EDGECAP_STEP_CLONES void NormalisePixels(const uint8_t* pixels, int count, const float* scale,
                                         const float* shift, float* out) {
  for (int i = 0; i < count; ++i) {
    for (int c = 0; c < 3; ++c) {
      out[3 * i + c] = static_cast<float>(pixels[3 * i + c]) * scale[c] + shift[c];
    }
  }
}

void BoxRow(const uint8_t* pixels, int width, int box, const float* scale, const float* shift,
            float* out) {
  const float share = 1.0f / static_cast<float>(box * box);
  for (int x = 0; x < width / box; ++x) {
    int32_t sums[3] = {};
    for (int row = 0; row < box; ++row) {
      const uint8_t* from = pixels + (static_cast<size_t>(row) * width + x * box) * 3;
      for (int i = 0; i < box; ++i) {
        for (int c = 0; c < 3; ++c) sums[c] += from[3 * i + c];
      }
    }
    for (int c = 0; c < 3; ++c) {
      out[3 * x + c] = static_cast<float>(sums[c]) * share * scale[c] + shift[c];
    }
  }
}

EDGECAP_STEP_CLONES void DepthwisePlace(const Convolution& c, const float* corner, int from, int to,
                                        int left, int right, float* out) {
  const int channels = c.in.channels;
  int first = 0;
  for (; first + kTileOutputs <= channels; first += kTileOutputs) {
    Channels<kTileBlocks>(c, corner, from, to, left, right, first, out);
  }
  for (; first + kLanes <= channels; first += kLanes) {
    Channels<1>(c, corner, from, to, left, right, first, out);
  }
  for (; first < channels; ++first) {
    float sum = c.bias[first];
    for (int y = from; y < to; ++y) {
      for (int x = left; x < right; ++x) {
        const ptrdiff_t place = static_cast<ptrdiff_t>(y) * c.in.width + x;
        const size_t tap = static_cast<size_t>(y) * c.kernel_width + x;
        sum += corner[place * channels + first] * c.taps[tap * channels + first];
      }
    }
    out[first] = sum;
  }
}

}  // namespace edgecap
