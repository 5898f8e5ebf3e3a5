#include "encode_rows.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "step_clones.h"

namespace edgecap {
namespace {

typedef float Floats __attribute__((vector_size(64)));

#define EDGECAP_INLINE static inline __attribute__((always_inline))

// 1.5 * 2^23: adding it rounds a float to a whole number in its low bits.
constexpr float kRound = 12582912.0f;

typedef int32_t Wholes __attribute__((vector_size(64)));
typedef int8_t Bytes __attribute__((vector_size(16)));

EDGECAP_INLINE Floats ToFloats(Wholes x) { return __builtin_convertvector(x, Floats); }
EDGECAP_INLINE Floats ToFloats(Floats x) { return x; }
EDGECAP_INLINE float ToFloats(int32_t x) { return static_cast<float>(x); }
EDGECAP_INLINE float ToFloats(float x) { return x; }

template <typename To, typename From>
EDGECAP_INLINE To Load(const From* from) {
  To value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

enum class Residual { kNone, kFloats, kBytes };

// What is the same for all channels of a tile.
struct Common {
  explicit Common(const TileEnd& end)
      : residual_scale(end.residual_scale.scale),
        residual_shift(-end.residual_scale.scale * static_cast<float>(end.residual_scale.zero)),
        rounded(end.rounded),
        rounded_inverse(end.rounded ? 1.0f / end.rounded.scale : 1.0f),
        rounded_scale(end.rounded.scale),
        rounded_low(-128.0f - static_cast<float>(end.rounded.zero)),
        rounded_high(127.0f - static_cast<float>(end.rounded.zero)),
        inverse(end.bytes != nullptr ? 1.0f / end.scale.scale : 1.0f),
        low(end.least * inverse),
        high(end.most * inverse),
        shift(end.scale.zero - 0x4b400000) {
    if (end.bytes == nullptr) return;
    low = std::max(low, -128.0f - static_cast<float>(end.scale.zero));
    high = std::min(high, 127.0f - static_cast<float>(end.scale.zero));
  }

  float residual_scale, residual_shift;
  bool rounded;
  float rounded_inverse, rounded_scale, rounded_low, rounded_high;
  float inverse, low, high;
  int32_t shift;
};

// 16 channels, or one: the values' types say which. Bytes are rounded to nearest, ties to even, as
// QuantizeLinear does; a NaN becomes the smallest.
template <Residual kResidual, bool kBias, bool kBytes, typename Value, typename Whole,
          typename Byte, typename Sums>
EDGECAP_INLINE void EndChannels(const Sums& sums, float row_scale, int i, int at,
                                const Common& common, const TileEnd& end) {
  Value value = ToFloats(sums);
  if constexpr (!std::is_same_v<Sums, Value>) {
    value *= Load<Value>(end.scales + i) * row_scale;
  }
  if constexpr (kBias) value += Load<Value>(end.bias + i);
  if (common.rounded) {
    const Value low = Value{} + common.rounded_low;
    const Value high = Value{} + common.rounded_high;
    value *= common.rounded_inverse;
    value = value > low ? value : low;
    value = value < high ? value : high;
    value = (value + kRound - kRound) * common.rounded_scale;
  }
  if constexpr (kResidual == Residual::kFloats) value += Load<Value>(end.residual + at + i);
  if constexpr (kResidual == Residual::kBytes) {
    const Byte bytes = Load<Byte>(end.residual_bytes + at + i);
    if constexpr (std::is_same_v<Value, float>) {
      value += static_cast<float>(bytes) * common.residual_scale + common.residual_shift;
    } else {
      value += ToFloats(__builtin_convertvector(bytes, Whole)) * common.residual_scale +
               common.residual_shift;
    }
  }
  const Value low = Value{} + common.low;
  const Value high = Value{} + common.high;
  if constexpr (!kBytes) {
    value = value > low ? value : low;
    value = value < high ? value : high;
    std::memcpy(end.floats + at + i, &value, sizeof(value));
  } else {
    Value scaled = value * common.inverse;
    scaled = scaled > low ? scaled : low;
    scaled = scaled < high ? scaled : high;
    scaled += kRound;
    Whole bits;
    std::memcpy(&bits, &scaled, sizeof(bits));
    bits += common.shift;
    Byte bytes;
    if constexpr (std::is_same_v<Value, float>) {
      bytes = static_cast<Byte>(bits);
    } else {
      bytes = __builtin_convertvector(bits, Byte);
    }
    std::memcpy(end.bytes + at + i, &bytes, sizeof(bytes));
  }
}

// One place of a tile; all that differs between convolutions is known to the compiler.
template <typename Sum, Residual kResidual, bool kBias, bool kBytes>
EDGECAP_INLINE void EndPlace(const Sum* sums, float row_scale, int count, int at,
                             const Common& common, const TileEnd& end) {
  using Sums = std::conditional_t<std::is_same_v<Sum, float>, Floats, Wholes>;
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    EndChannels<kResidual, kBias, kBytes, Floats, Wholes, Bytes>(Load<Sums>(sums + i), row_scale, i,
                                                                 at, common, end);
  }
  for (; i < count; ++i) {
    EndChannels<kResidual, kBias, kBytes, float, int32_t, int8_t>(sums[i], row_scale, i, at, common,
                                                                  end);
  }
}

template <typename Sum, Residual kResidual, bool kBytes>
EDGECAP_INLINE void EndPlaces(const Sum* sums, int rows, int count, int stride,
                              const TileEnd& end) {
  const Common common(end);
  for (int r = 0; r < rows; ++r) {
    const Sum* from = sums + r * kTileOutputs;
    const float row_scale = end.row_scales == nullptr ? 1.0f : end.row_scales[r];
    if (end.bias == nullptr) {
      EndPlace<Sum, kResidual, false, kBytes>(from, row_scale, count, r * stride, common, end);
    } else {
      EndPlace<Sum, kResidual, true, kBytes>(from, row_scale, count, r * stride, common, end);
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
  EDGECAP_UNROLL
  for (int b = 0; b < kBlocks; ++b) {
    std::memcpy(&sums[b], c.bias.data() + first + b * kLanes, sizeof(Floats));
  }
  for (int y = from; y < to; ++y) {
    const float* row = corner + static_cast<ptrdiff_t>(y) * c.in.width * channels + first;
    const float* taps = c.taps.data() + static_cast<size_t>(y) * c.kernel_width * channels + first;
    for (int x = left; x < right; ++x) {
      EDGECAP_UNROLL
      for (int b = 0; b < kBlocks; ++b) {
        Floats value;
        Floats tap;
        std::memcpy(&value, row + static_cast<ptrdiff_t>(x) * channels + b * kLanes, sizeof(value));
        std::memcpy(&tap, taps + static_cast<size_t>(x) * channels + b * kLanes, sizeof(tap));
        sums[b] += value * tap;
      }
    }
  }
  EDGECAP_UNROLL
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

bool IsRow3(const Convolution& c) {
  return c.kernel_height == 3 && c.kernel_width == 3 && c.in.channels % kLanes == 0;
}

// A block's taps stay in registers; the sums have the order of DepthwisePlace.
EDGECAP_STEP_CLONES void DepthwiseRow3(const Convolution& c, const float* map, int first, int last,
                                       float* out) {
  const ptrdiff_t channels = c.in.channels;
  const ptrdiff_t row = c.in.width * channels;
  const Floats low = Floats{} + c.least;
  const Floats high = Floats{} + c.most;
  for (int channel = 0; channel < channels; channel += kLanes) {
    Floats taps[9];
    for (int i = 0; i < 9; ++i) taps[i] = Load<Floats>(c.taps.data() + i * channels + channel);
    const Floats bias = Load<Floats>(c.bias.data() + channel);
    for (int x = first; x < last; ++x) {
      const float* from = map + (x * c.stride_width - c.left) * channels + channel;
      Floats sum = bias;
      for (int ky = 0; ky < 3; ++ky) {
        for (int kx = 0; kx < 3; ++kx) {
          sum += Load<Floats>(from + ky * row + kx * channels) * taps[3 * ky + kx];
        }
      }
      sum = sum > low ? sum : low;
      sum = sum < high ? sum : high;
      std::memcpy(out + x * channels + channel, &sum, sizeof(sum));
    }
  }
}

}  // namespace edgecap
