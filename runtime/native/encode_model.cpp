#include "encode_model.h"

#include <algorithm>
#include <stdexcept>

namespace edgecap {
namespace {

// A source in bytes counts from its zero point: what that adds to each sum comes off the bias.
// firsts : where it is not null, becomes -128 times an output's weights.
void TakeZeroOff(const MapBytes& source, Matrix* m, std::vector<int32_t>* firsts) {
  const int less = m->biased ? 128 : 0;
  if (firsts != nullptr) firsts->assign(static_cast<size_t>(m->blocks()) * kLanes, 0);
  for (int o = 0; o < m->outputs; ++o) {
    const uint8_t* block =
        m->weights.as<uint8_t>() + static_cast<size_t>(o / kLanes) * m->depth * kLanes;
    int32_t sum = 0;
    for (int i = 0; i < m->inputs; ++i) {
      const uint8_t byte = block[(i / 4 * kLanes + o % kLanes) * 4 + i % 4];
      sum += less != 0 ? byte - less : static_cast<int8_t>(byte);
    }
    m->bias[o] -= static_cast<float>(sum * source.zero) * (m->scales[o] * source.scale);
    if (firsts != nullptr) (*firsts)[o] = -128 * sum;
  }
}

}  // namespace

void Convolution::Check() const {
  if (std::min({kernel_height, kernel_width, stride_height, stride_width}) < 1 ||
      std::min(top, left) < 0 || top >= kernel_height || left >= kernel_width ||
      (out.height - 1) * stride_height - top >= in.height ||
      (out.width - 1) * stride_width - left >= in.width) {
    throw std::invalid_argument("a kernel leaves its map");
  }
}

void Convolution::Pack(const float* weights, const float* biases, MapBytes source, bool whole,
                       const WholeKernel& kernel) {
  const int inputs = kernel_height * kernel_width * in.channels;
  if (source && !whole) throw std::invalid_argument("bytes are multiplied in int8");
  const bool more = source && kernel.more != nullptr;
  matrix = edgecap::Pack(weights, biases, out.channels, inputs,
                         whole ? Precision::kInt8 : Precision::kFloat, !more && kernel.biased);
  if (source) TakeZeroOff(source, &matrix, more ? &firsts : nullptr);
}

size_t EncoderModel::bytes() const {
  size_t total = 0;
  for (const Convolution& c : convolutions) {
    total += c.matrix.weights.bytes() + sizeof(float) * (c.matrix.scales.size() + c.taps.size());
  }
  for (const HeadStep& step : steps) {
    total += step.matrix.weights.bytes() + sizeof(float) * step.weight.size();
  }
  return total;
}

size_t EncoderModel::values(const HeadResult& result) const {
  if (result.map >= 0) return convolutions[result.map].out.values();
  return result.index.empty() ? steps[result.step].values() : result.index.size();
}

}  // namespace edgecap
