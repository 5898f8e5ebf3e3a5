// A causal Transformer decoder on the CPU, one token a row and call; see docs/cpu_engine.md.
//
// Weights are packed once. A StepRun owns what one decode of B pictures with K beams needs and
// allocates nothing after its set-up. Rows are computed each for itself: what one says never
// depends on which others run beside it.
#pragma once

#include <cstdint>
#include <vector>

#include "beam.h"
#include "step_kernels.h"
#include "step_pool.h"
#include "step_rows.h"

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

class StepRun {
 public:
  StepRun(const StepModel& model, StepPool& pool, const WholeKernel& kernel, int batch, int beams);

  int rows() const { return rows_; }
  int batch() const { return batch_; }
  int beams() const { return beams_; }

  // A layer's memory, float32: keys [B, h, d / h, N] and values [B, h, N, d / h], or both as rows
  // [B, N, d]. Copied into the order that products read.
  void SetMemory(int layer, const float* keys, const float* values, bool as_rows);
  // [B, d], which stands for the words at step 0; null for none. Copied.
  void SetFirst(const float* first);

  // One step: tokens [R], ancestry [R, K * T]. Returns logits [R, V], rows `logits_stride()` apart,
  // valid until the next step. Throws std::out_of_range for a token or position that is none.
  const float* Step(const int64_t* tokens, int position, const uint8_t* ancestry);
  int logits_stride() const { return logits_stride_; }

  // Steps of model and search in turn, until the search is done or `limit` were taken. Adds the
  // seconds spent in the model's steps. Returns whether the search is done.
  bool Advance(BeamSearch* search, const int64_t* tokens, const uint8_t* ancestry, int limit,
               double* seconds);

 private:
  void Embed(const int64_t* tokens, int position);
  void FindPast(const uint8_t* ancestry, int position);
  void Normalise(const StepNorm& norm, const float* x, float* out);
  void Prepare(const Matrix& matrix, const float* x);
  void Product(const Matrix& matrix, const float* x, float* out, int stride, Finish finish);
  const float* Enter(const StepNorm& norm);
  void Leave(const StepNorm& norm);
  void AttendSelf(int layer, int part, int position);
  void AttendMemory(int layer, int part);
  float* Scores(int part) { return scores_.as<float>() + static_cast<size_t>(part) * score_size_; }
  void MemoryScores(int layer, int part, const float* query, int stride, int rows, int width,
                    float* scores) const;
  void MemoryMix(int layer, int part, const float* shares, int width, int rows, float* out) const;

  const StepModel& model_;
  StepPool& pool_;
  const WholeKernel& kernel_;
  const int batch_;
  const int beams_;
  const int rows_;
  const int logits_stride_;
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
  Aligned whole_;                       // [R, widest] of int8
  std::vector<WholeRow> whole_rows_;
  std::vector<int32_t> whole_sums_;
  int whole_stride_ = 0;
};

}  // namespace edgecap
