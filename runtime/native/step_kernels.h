// Products of a few rows with a packed matrix, one tile of outputs at a time.
//
// A matrix is packed in blocks of 16 outputs. Whole numbers are summed exactly, so every variant
// gives the same ones; sums of floats run over the inputs in order, without fused multiply-adds,
// so they are the same everywhere too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace edgecap {

constexpr int kLanes = 16;      // outputs of a block
constexpr int kTileBlocks = 4;  // blocks of a tile
constexpr int kTileRows = 4;
constexpr int kTileOutputs = kTileBlocks * kLanes;

inline int Blocks(int outputs) { return (outputs + kLanes - 1) / kLanes; }

// Of the weights; with kInt8 inputs are whole numbers, too, else they are floats.
enum class Precision : int { kFloat = 0, kBfloat16 = 1, kInt8 = 2 };

// Memory that starts at a cache line and ends with a whole one.
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(size_t bytes);
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_.get());
  }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(data_.get());
  }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* data) const;
  };
  std::unique_ptr<void, Free> data_;
  size_t bytes_ = 0;
};

// [outputs, inputs] times rows of inputs, and a bias.
struct Matrix {
  Precision precision = Precision::kFloat;
  int inputs = 0;
  int outputs = 0;
  int depth = 0;  // inputs, with zeros to a multiple of 4
  Aligned weights;
  // kInt8 : [blocks, depth / 4, 16, 4] bytes, 128 more than the weight where `biased`;
  // else [blocks, depth, 16] of bfloat16 or float
  bool biased = false;
  std::vector<float> scales;  // [blocks * 16] of int8; the weight is scale * whole number
  std::vector<float> bias;    // [blocks * 16]

  int blocks() const { return Blocks(outputs); }
  int tiles() const { return (blocks() + kTileBlocks - 1) / kTileBlocks; }
};

// One way to multiply whole numbers: result[row * 64 + output] of `rows` <= 4 rows x and `blocks`
// <= 4 blocks at `weights`, of 4 * `groups` inputs each. Rows lie `stride` bytes apart; `sums` are
// those of the rows' inputs, which `sum` gives. With `biased` the weights are 128 more than they
// mean.
struct WholeKernel {
  const char* name;
  bool biased;
  void (*product)(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
                  const int32_t* sums, int rows, int32_t* result);
  int32_t (*sum)(const int8_t* x, int count);
  // Where it is not null: the same of weights that are not biased, and without sums. firsts : of
  // each output, -128 times its weights
  void (*more)(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
               const int32_t* firsts, int rows, int32_t* result);
};
int32_t SumWhole(const int8_t* x, int count);

// Those that this processor can run, best first; the last runs everywhere.
const std::vector<WholeKernel>& WholeKernels();
// The one of this name, or the best for an empty one. Throws std::invalid_argument.
const WholeKernel& ChooseWholeKernel(const std::string& name);

// Of the processor's own instructions, for WholeKernels() alone.
void AddProcessorKernels(std::vector<WholeKernel>* kernels);

// Packs float weights [outputs, inputs]; bias [outputs] or null. int8 has a scale an output, its
// largest weight / 127. biased : as the kernel's function wants them
Matrix Pack(const float* weights, const float* bias, int outputs, int inputs, Precision precision,
            bool biased);
inline Matrix Pack(const float* weights, const float* bias, int outputs, int inputs,
                   Precision precision, const WholeKernel& kernel) {
  return Pack(weights, bias, outputs, inputs, precision, kernel.biased);
}

// The same tile of floats, by the matrix's precision (not kInt8); x in float, `stride` floats.
void FloatTile(const Matrix& matrix, int first_block, int blocks, const float* x, int stride,
               int rows, float* result);

// The same of floats in memory, packed as a matrix of that precision is: [blocks, depth, 16], of
// which the first `inputs` of `depth` count.
void FloatTile(const float* weights, int depth, int inputs, int blocks, const float* x, int stride,
               int rows, float* result);

// Rows in int8: x = scale * q, one scale a row, the largest |x| / 127. q has `depth` bytes.
struct WholeRow {
  float scale;
  int32_t sum;
};
WholeRow Quantise(const float* x, int count, int depth, int8_t* q);

}  // namespace edgecap
