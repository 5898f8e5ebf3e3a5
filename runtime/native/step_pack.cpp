#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>

#include "step_clones.h"
#include "step_kernels.h"

namespace edgecap {
namespace {

constexpr size_t kCacheLine = 64;

// Round to nearest, ties to even; a NaN stays one.
uint16_t ToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The whole numbers of one output, and their scale.
float QuantiseOutput(const float* weights, int inputs, int8_t* whole) {
  float largest = 0.0f;
  for (int i = 0; i < inputs; ++i) largest = std::max(largest, std::fabs(weights[i]));
  if (!(largest > 0.0f) || !std::isfinite(largest)) {
    std::fill(whole, whole + inputs, int8_t{0});
    return 0.0f;
  }
  const float scale = largest / 127.0f;
  for (int i = 0; i < inputs; ++i) {
    const float rounded = std::nearbyint(weights[i] / scale);
    whole[i] = static_cast<int8_t>(std::min(127.0f, std::max(-127.0f, rounded)));
  }
  return scale;
}

// 1.5 * 2^23: adding it rounds a float to a whole number in its low bits.
constexpr float kRound = 12582912.0f;

EDGECAP_STEP_CLONES float Largest(const float* x, int count) {
  constexpr int kWide = 4 * kLanes;  // so that no comparison waits for the one before
  float best[kWide] = {};
  int i = 0;
  for (; i + kWide <= count; i += kWide) {
    for (int j = 0; j < kWide; ++j) {
      const float size = std::fabs(x[i + j]);
      best[j] = size > best[j] ? size : best[j];
    }
  }
  for (int j = 0; i + j < count; ++j) {
    const float size = std::fabs(x[i + j]);
    best[j] = size > best[j] ? size : best[j];
  }
  for (int half = kWide / 2; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) best[j] = best[j] > best[j + half] ? best[j] : best[j + half];
  }
  return best[0];
}

EDGECAP_STEP_CLONES int32_t Round(const float* x, int count, float inverse, int8_t* q) {
  int32_t sum = 0;
  for (int i = 0; i < count; ++i) {
    const float shifted = x[i] * inverse + kRound;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    const int32_t value = bits - 0x4b400000;
    q[i] = static_cast<int8_t>(value);
    sum += value;
  }
  return sum;
}

}  // namespace

Aligned::Aligned(size_t bytes) : bytes_((bytes + kCacheLine - 1) / kCacheLine * kCacheLine) {
  bytes_ = std::max(bytes_, kCacheLine);
  data_.reset(std::aligned_alloc(kCacheLine, bytes_));
  if (!data_) throw std::bad_alloc();
  std::memset(data_.get(), 0, bytes_);
}

void Aligned::Free::operator()(void* data) const { std::free(data); }

WholeRow Quantise(const float* x, int count, int depth, int8_t* q) {
  const float largest = Largest(x, count);
  std::fill(q + count, q + depth, int8_t{0});
  // Neither an empty row nor one that has left the floats has whole numbers.
  if (!(largest > 1e-30f) || !(largest <= FLT_MAX)) {
    std::fill(q, q + count, int8_t{0});
    return {largest > 1e-30f ? std::numeric_limits<float>::quiet_NaN() : 0.0f, 0};
  }
  return {largest / 127.0f, Round(x, count, 127.0f / largest, q)};
}

Matrix Pack(const float* weights, const float* bias, int outputs, int inputs, Precision precision,
            bool biased) {
  if (outputs < 1 || inputs < 1) throw std::invalid_argument("a matrix without rows or columns");
  Matrix m;
  m.precision = precision;
  m.outputs = outputs;
  m.inputs = inputs;
  m.depth = (inputs + 3) / 4 * 4;
  m.biased = precision == Precision::kInt8 && biased;
  const size_t lanes = static_cast<size_t>(m.blocks()) * kLanes;
  const size_t size = precision == Precision::kFloat      ? 4
                      : precision == Precision::kBfloat16 ? 2
                                                          : 1;
  m.weights = Aligned(lanes * m.depth * size);
  m.bias.assign(lanes, 0.0f);
  if (bias != nullptr) std::copy(bias, bias + outputs, m.bias.begin());
  if (size == 1) m.scales.assign(lanes, 0.0f);
  if (m.biased) std::memset(m.weights.as<uint8_t>(), 128, m.weights.bytes());

  std::vector<int8_t> whole(inputs);
  for (int o = 0; o < outputs; ++o) {
    const float* from = weights + static_cast<size_t>(o) * inputs;
    const size_t block = static_cast<size_t>(o / kLanes) * m.depth * kLanes;
    const int lane = o % kLanes;
    if (size == 1) m.scales[o] = QuantiseOutput(from, inputs, whole.data());
    for (int i = 0; i < inputs; ++i) {
      const size_t at = block + static_cast<size_t>(i) * kLanes + lane;
      switch (precision) {
        case Precision::kFloat:
          m.weights.as<float>()[at] = from[i];
          break;
        case Precision::kBfloat16:
          m.weights.as<uint16_t>()[at] = ToBfloat16(from[i]);
          break;
        case Precision::kInt8:
          m.weights.as<uint8_t>()[block + (i / 4 * kLanes + lane) * 4 + i % 4] =
              static_cast<uint8_t>(whole[i] + (m.biased ? 128 : 0));
          break;
      }
    }
  }
  return m;
}

}  // namespace edgecap
