// Attention of a decoder step: over a row's own past, a prefix before it, the picture's memory.
#include <algorithm>
#include <cstring>

#include "step_decoder.h"

namespace edgecap {

// Queries of `rows` <= 4 rows times the keys of one picture and head.
void TransformerRun::MemoryScores(int layer, int part, const float* query, int stride, int rows,
                                  int width, float* scores) const {
  const int depth = model_.depth();
  alignas(64) float tile[kTileRows * kTileOutputs];
  const float* keys =
      memory_keys_[layer].as<float>() + static_cast<size_t>(part) * memory_blocks_ * depth * kLanes;
  for (int block = 0; block < memory_blocks_; block += kTileBlocks) {
    const int blocks = std::min(kTileBlocks, memory_blocks_ - block);
    const int count = std::min(kTileOutputs, model_.memory - block * kLanes);
    FloatTile(keys + static_cast<size_t>(block) * depth * kLanes, depth, depth, blocks, query,
              stride, rows, tile);
    for (int r = 0; r < rows; ++r) {
      std::copy(tile + r * kTileOutputs, tile + r * kTileOutputs + count,
                scores + static_cast<size_t>(r) * width + block * kLanes);
    }
  }
}

// Values of one picture and head, mixed by the shares of `rows` <= 4 rows, to out [rows, d].
void TransformerRun::MemoryMix(int layer, int part, const float* shares, int width, int rows,
                               float* out) const {
  alignas(64) float tile[kTileRows * kTileOutputs];
  const float* values = memory_values_[layer].as<float>() +
                        static_cast<size_t>(part) * depth_blocks_ * model_.memory * kLanes;
  for (int block = 0; block < depth_blocks_; block += kTileBlocks) {
    const int blocks = std::min(kTileBlocks, depth_blocks_ - block);
    const int count = std::min(kTileOutputs, model_.depth() - block * kLanes);
    FloatTile(values + static_cast<size_t>(block) * model_.memory * kLanes, model_.memory,
              model_.memory, blocks, shares, width, rows, tile);
    for (int r = 0; r < rows; ++r) {
      std::copy(tile + r * kTileOutputs, tile + r * kTileOutputs + count,
                out + static_cast<size_t>(r) * model_.width + block * kLanes);
    }
  }
}

void TransformerRun::AttendMemory(int layer, int part) {
  const int image = part / model_.heads;
  const int start = part % model_.heads * model_.depth();
  const int width = memory_blocks_ * kLanes;
  float* scores = Scores(part);
  for (int beam = 0; beam < beams_; beam += kTileRows) {
    const int rows = std::min(kTileRows, beams_ - beam);
    const size_t row = static_cast<size_t>(image) * beams_ + beam;
    MemoryScores(layer, part, qkv_.as<float>() + row * model_.width + start, model_.width, rows,
                 width, scores);
    for (int r = 0; r < rows; ++r) {
      Softmax(scores + r * width, model_.memory, model_.layers[layer].cross_scale);
    }
    MemoryMix(layer, part, scores, width, rows, mixed_.as<float>() + row * model_.width + start);
  }
}

// Over prefix (where memory is one), past and the word itself; keeps this step's key and value.
void TransformerRun::AttendSelf(int layer, int part, int position) {
  const int d = model_.width;
  const int depth = model_.depth();
  const int image = part / model_.heads;
  const int start = part % model_.heads * depth;
  const int ahead = model_.crosses() ? 0 : model_.memory;
  const int width = memory_blocks_ * kLanes + model_.positions + 1;
  const size_t slots = static_cast<size_t>(image) * model_.positions * beams_;
  float* keys = keys_[layer].as<float>() + slots * d + start;
  float* values = values_[layer].as<float>() + slots * d + start;
  float* scores = Scores(part);
  for (int beam = 0; beam < beams_; beam += kTileRows) {
    const int rows = std::min(kTileRows, beams_ - beam);
    const size_t first = static_cast<size_t>(image) * beams_ + beam;
    const float* query = qkv_.as<float>() + first * 3 * d + start;
    float* out = mixed_.as<float>() + first * d + start;
    if (ahead > 0) MemoryScores(layer, part, query, 3 * d, rows, width, scores);
    for (int r = 0; r < rows; ++r) {
      const float* q = query + static_cast<size_t>(r) * 3 * d;
      const int32_t* past = past_.data() + (first + r) * model_.positions;
      const int count = past_count_[first + r];
      float* own = scores + r * width;
      for (int i = 0; i < count; ++i) {
        own[ahead + i] = Dot(q, keys + static_cast<size_t>(past[i]) * d, depth);
      }
      own[ahead + count] = Dot(q, q + d, depth);
      Softmax(own, ahead + count + 1, model_.layers[layer].scale);
    }
    if (ahead > 0) {
      MemoryMix(layer, part, scores, width, rows, out);
    } else {
      for (int r = 0; r < rows; ++r) std::fill(out + r * d, out + r * d + depth, 0.0f);
    }
    for (int r = 0; r < rows; ++r) {
      const float* q = query + static_cast<size_t>(r) * 3 * d;
      const int32_t* past = past_.data() + (first + r) * model_.positions;
      const int count = past_count_[first + r];
      const float* share = scores + r * width + ahead;
      for (int i = 0; i < count; ++i) {
        AddScaled(values + static_cast<size_t>(past[i]) * d, share[i], depth, out + r * d);
      }
      AddScaled(q + 2 * d, share[count], depth, out + r * d);
      const size_t slot = static_cast<size_t>(position) * beams_ + beam + r;
      std::copy(q + d, q + d + depth, keys + slot * d);
      std::copy(q + 2 * d, q + 2 * d + depth, values + slot * d);
    }
  }
}

}  // namespace edgecap
