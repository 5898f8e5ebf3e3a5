// A causal Transformer decoder on the CPU, one token a row and call; see docs/cpu_engine.md.
//
// Weights are packed once; a TransformerRun owns what one decode needs.
#pragma once

#include <cstdint>
#include <vector>

#include "step_kernels.h"
#include "step_product.h"
#include "step_rows.h"
#include "step_run.h"

namespace edgecap {

struct StepNorm {
  std::vector<float> weight;  // [d]; empty: there is no norm
  std::vector<float> bias;
  float eps = 1e-5f;

  explicit operator bool() const { return !weight.empty(); }
};

struct StepLayer {
  Matrix qkv;  // [3 * d, d]
  Matrix out;
  Matrix up;
  Matrix down;
  StepNorm norm;
  StepNorm feed_norm;
  Activation activation = Activation::kNone;
  float scale = 1.0f;  // of the products of queries and keys
  // Attention over the picture's memory; none where cross_query has no outputs.
  Matrix cross_query;
  Matrix cross_out;
  StepNorm cross_norm;
  float cross_scale = 1.0f;
};

struct StepModel {
  int width = 0;  // d
  int heads = 0;
  int vocab = 0;              // V
  int positions = 0;          // T
  int offset = 0;             // the word at step t has place t + offset
  int memory = 0;             // tokens of a picture's memory; 0: none
  bool before = true;         // norms stand before what they belong to, else after it
  std::vector<float> words;   // [V, d]
  std::vector<float> places;  // [at least T + offset, d]
  StepNorm norm_words;
  StepNorm norm;
  Matrix transform;  // BERT's layer before the words; no outputs: none
  Activation transform_activation = Activation::kNone;
  StepNorm transform_norm;
  Matrix head;  // [V, d]
  std::vector<StepLayer> layers;

  int depth() const { return width / heads; }
  bool crosses() const { return !layers.empty() && layers[0].cross_query.outputs > 0; }
  // Throws std::invalid_argument for sizes that do not fit together.
  void Check() const;
};

class TransformerRun final : public StepRun {
 public:
  TransformerRun(const StepModel& model, StepPool& pool, const WholeKernel& kernel, int batch,
                 int beams);

  // A layer's memory, float32: keys [B, h, d / h, N] and values [B, h, N, d / h], or both as rows
  // [B, N, d]. Copied into the order that products read.
  void SetMemory(int layer, const float* keys, const float* values, bool as_rows);
  // [B, d], which stands for the words at step 0; null for none. Copied.
  void SetFirst(const float* first);

 private:
  const float* Take(const int64_t* tokens, const int64_t* parents, int position,
                    const uint8_t* ancestry, LogitTile* tiles) override;
  void Embed(const int64_t* tokens, int position);
  void FindPast(const uint8_t* ancestry, int position);
  void Normalise(const StepNorm& norm, const float* x, float* out);
  const float* Enter(const StepNorm& norm);
  void Leave(const StepNorm& norm);
  void AttendSelf(int layer, int part, int position);
  void AttendMemory(int layer, int part);
  float* Scores(int part) { return scores_.as<float>() + static_cast<size_t>(part) * score_size_; }
  void MemoryScores(int layer, int part, const float* query, int stride, int rows, int width,
                    float* scores) const;
  void MemoryMix(int layer, int part, const float* shares, int width, int rows, float* out) const;

  const StepModel& model_;
  Products products_;
  const int memory_blocks_;
  const int depth_blocks_;
  size_t score_size_ = 0;  // floats of one part
  bool has_first_ = false;
  std::vector<Aligned> keys_;           // a layer: [B, T * K, d]
  std::vector<Aligned> values_;         // a layer: [B, T * K, d]
  std::vector<Aligned> memory_keys_;    // a layer: [B, h, blocks of N, d / h, 16]
  std::vector<Aligned> memory_values_;  // a layer: [B, h, blocks of d / h, N, 16]
  std::vector<int32_t> past_;           // [R, T]: slots of a row's own past, in order
  std::vector<int32_t> past_count_;     // [R]
  std::vector<float> first_;            // [B, d]
  Aligned x_;                           // [R, d]: the residual stream
  Aligned normed_;                      // [R, widest]
  Aligned qkv_;                         // [R, 3 * d]
  Aligned mixed_;                       // [R, d]
  Aligned hidden_;                      // [R, hidden]
  Aligned logits_;                      // [R, logits_stride]
  Aligned scores_;                      // [B * h, 4, memory and past]
};

}  // namespace edgecap
