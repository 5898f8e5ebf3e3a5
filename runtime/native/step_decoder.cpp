#include "step_decoder.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace edgecap {
namespace {

void Require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

bool Fits(const Matrix& m, int outputs, int inputs) {
  return m.outputs == outputs && m.inputs == inputs;
}

bool Fits(const StepNorm& norm, int width) {
  return norm.weight.size() == static_cast<size_t>(width) && norm.bias.size() == norm.weight.size();
}

int Widest(const StepModel& model) {
  int widest = model.width;
  for (const StepLayer& layer : model.layers) widest = std::max(widest, layer.up.outputs);
  return (widest + 63) / 64 * 64;
}

}  // namespace

void StepModel::Check() const {
  Require(width > 0 && heads > 0 && width % heads == 0, "width must be a multiple of heads");
  Require(positions > 0 && vocab > 1 && !layers.empty() && memory >= 0, "sizes must be above 0");
  const size_t d = width;
  Require(words.size() == vocab * d, "words are not [V, d]");
  Require(offset >= 0 && places.size() % d == 0 &&
              places.size() >= (static_cast<size_t>(positions) + offset) * d,
          "places are not [T + offset, d]");
  Require(Fits(head, vocab, width), "the head is not [V, d]");
  Require(!norm || Fits(norm, width), "the last norm is not [d]");
  Require(!norm_words || Fits(norm_words, width), "the norm of the words is not [d]");
  if (transform.outputs > 0) {
    Require(Fits(transform, width, width) && Fits(transform_norm, width),
            "the head's layer is not [d, d]");
  }
  for (const StepLayer& layer : layers) {
    Require(Fits(layer.qkv, 3 * width, width) && Fits(layer.out, width, width),
            "attention is not [3 * d, d] and [d, d]");
    Require(layer.up.inputs == width && Fits(layer.down, width, layer.up.outputs),
            "the feed-forward layer is not [hidden, d] and [d, hidden]");
    Require(Fits(layer.norm, width) && Fits(layer.feed_norm, width), "a norm is not [d]");
    Require((layer.cross_query.outputs > 0) == crosses(), "layers differ in cross-attention");
    if (!crosses()) continue;
    Require(memory > 0 && Fits(layer.cross_query, width, width) &&
                Fits(layer.cross_out, width, width) && Fits(layer.cross_norm, width),
            "cross-attention is not [d, d]");
  }
}

TransformerRun::TransformerRun(const StepModel& model, StepPool& pool, const WholeKernel& kernel,
                               int batch, int beams)
    : StepRun(pool, batch, beams, model.vocab, model.positions),
      model_(model),
      products_(pool, kernel, batch * beams, Widest(model)),
      memory_blocks_(Blocks(model.memory)),
      depth_blocks_(Blocks(model.depth())) {
  const size_t d = model.width;
  const size_t rows = rows_;
  const size_t slots = static_cast<size_t>(batch) * beams * model.positions;
  const size_t widest = Widest(model);
  const size_t each = static_cast<size_t>(batch) * model.heads * kLanes * sizeof(float);
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    keys_.emplace_back(slots * d * sizeof(float));
    values_.emplace_back(slots * d * sizeof(float));
    if (model.memory == 0) continue;
    memory_keys_.emplace_back(each * memory_blocks_ * model.depth());
    memory_values_.emplace_back(each * depth_blocks_ * model.memory);
  }
  past_.assign(rows * model.positions, 0);
  past_count_.assign(rows, 0);
  first_.assign(batch * d, 0.0f);
  x_ = Aligned(rows * d * sizeof(float));
  normed_ = Aligned(rows * widest * sizeof(float));
  qkv_ = Aligned(rows * 3 * d * sizeof(float));
  mixed_ = Aligned(rows * d * sizeof(float));
  hidden_ = Aligned(rows * widest * sizeof(float));
  logits_ = Aligned(rows * logits_stride_ * sizeof(float));
  score_size_ = kTileRows * (static_cast<size_t>(memory_blocks_) * kLanes + model.positions + 1);
  scores_ = Aligned(static_cast<size_t>(batch) * model.heads * score_size_ * sizeof(float));
}

void TransformerRun::SetMemory(int layer, const float* keys, const float* values, bool as_rows) {
  const int depth = model_.depth();
  const int count = model_.memory;
  if (layer < 0 || layer >= static_cast<int>(memory_keys_.size())) {
    throw std::out_of_range("the model has no memory for this layer");
  }
  float* packed_keys = memory_keys_[layer].as<float>();
  float* packed_values = memory_values_[layer].as<float>();
  for (int part = 0; part < batch_ * model_.heads; ++part) {
    const int image = part / model_.heads;
    const int head = part % model_.heads;
    const size_t start = static_cast<size_t>(part) * count * depth;
    const size_t row = static_cast<size_t>(image) * count * model_.width + head * depth;
    for (int n = 0; n < count; ++n) {
      const float* value = values + (as_rows ? row + static_cast<size_t>(n) * model_.width
                                             : start + static_cast<size_t>(n) * depth);
      for (int c = 0; c < depth; c += kLanes) {
        const size_t block = static_cast<size_t>(part) * depth_blocks_ + c / kLanes;
        std::copy(value + c, value + std::min(c + kLanes, depth),
                  packed_values + (block * count + n) * kLanes);
      }
    }
    for (int c = 0; c < depth; ++c) {
      for (int n = 0; n < count; n += kLanes) {
        const size_t block = static_cast<size_t>(part) * memory_blocks_ + n / kLanes;
        float* to = packed_keys + (block * depth + c) * kLanes;
        const int lanes = std::min(kLanes, count - n);
        if (!as_rows) {
          const float* from = keys + start + static_cast<size_t>(c) * count + n;
          std::copy(from, from + lanes, to);
          continue;
        }
        for (int lane = 0; lane < lanes; ++lane) {
          to[lane] = keys[row + static_cast<size_t>(n + lane) * model_.width + c];
        }
      }
    }
  }
}

void TransformerRun::SetFirst(const float* first) {
  has_first_ = first != nullptr;
  if (has_first_) std::copy(first, first + first_.size(), first_.begin());
}

const float* TransformerRun::Take(const int64_t* tokens, const int64_t*, int position,
                                  const uint8_t* ancestry, LogitTile* tiles) {
  const int d = model_.width;
  const int parts = batch_ * model_.heads;
  float* x = x_.as<float>();
  float* mixed = mixed_.as<float>();
  Embed(tokens, position);
  FindPast(ancestry, position);
  for (int i = 0; i < static_cast<int>(model_.layers.size()); ++i) {
    const StepLayer& layer = model_.layers[i];
    products_.Run(layer.qkv, Enter(layer.norm), qkv_.as<float>(), 3 * d, {});
    pool_.Run(parts, [&](int part) { AttendSelf(i, part, position); });
    products_.Run(layer.out, mixed, x, d, {Activation::kNone, true});
    Leave(layer.norm);
    if (layer.cross_query.outputs > 0) {
      products_.Run(layer.cross_query, Enter(layer.cross_norm), qkv_.as<float>(), d, {});
      pool_.Run(parts, [&](int part) { AttendMemory(i, part); });
      products_.Run(layer.cross_out, mixed, x, d, {Activation::kNone, true});
      Leave(layer.cross_norm);
    }
    float* hidden = hidden_.as<float>();
    products_.Run(layer.up, Enter(layer.feed_norm), hidden, layer.up.outputs,
                  {layer.activation, false});
    products_.Run(layer.down, hidden, x, d, {Activation::kNone, true});
    Leave(layer.feed_norm);
  }
  if (model_.norm) Normalise(model_.norm, x, x);
  if (model_.transform.outputs > 0) {
    products_.Run(model_.transform, x, mixed, d, {model_.transform_activation, false});
    Normalise(model_.transform_norm, mixed, x);
  }
  products_.Run(model_.head, x, logits_.as<float>(), logits_stride_, {}, tiles);
  return logits_.as<float>();
}

void TransformerRun::Embed(const int64_t* tokens, int position) {
  const int d = model_.width;
  const float* place = model_.places.data() + static_cast<size_t>(position + model_.offset) * d;
  for (int row = 0; row < rows_; ++row) {
    const bool first = has_first_ && position == 0;
    const float* word = first ? first_.data() + static_cast<size_t>(row / beams_) * d
                              : model_.words.data() + static_cast<size_t>(tokens[row]) * d;
    float* x = x_.as<float>() + static_cast<size_t>(row) * d;
    for (int c = 0; c < d; ++c) x[c] = word[c] + place[c];
  }
  if (model_.norm_words) Normalise(model_.norm_words, x_.as<float>(), x_.as<float>());
}

// Slots of later steps hold nothing of this caption, whatever the mask says.
void TransformerRun::FindPast(const uint8_t* ancestry, int position) {
  const int slots = beams_ * model_.positions;
  for (int row = 0; row < rows_; ++row) {
    const uint8_t* seen = ancestry + static_cast<size_t>(row) * slots;
    int32_t* past = past_.data() + static_cast<size_t>(row) * model_.positions;
    int count = 0;
    for (int slot = 0; slot < position * beams_ && count < position; ++slot) {
      if (seen[slot]) past[count++] = slot;
    }
    past_count_[row] = count;
  }
}

void TransformerRun::Normalise(const StepNorm& norm, const float* x, float* out) {
  const size_t d = model_.width;
  for (int row = 0; row < rows_; ++row) {
    LayerNorm(x + row * d, model_.width, norm.weight.data(), norm.bias.data(), norm.eps,
              out + row * d);
  }
}

// What a branch of the residual stream reads.
const float* TransformerRun::Enter(const StepNorm& norm) {
  if (!model_.before) return x_.as<float>();
  Normalise(norm, x_.as<float>(), normed_.as<float>());
  return normed_.as<float>();
}

void TransformerRun::Leave(const StepNorm& norm) {
  if (!model_.before) Normalise(norm, x_.as<float>(), x_.as<float>());
}

}  // namespace edgecap
