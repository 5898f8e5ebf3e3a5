// Float products: vectors of 16 that the compiler lowers to what the processor has.
#include <cstring>

#include "step_clones.h"
#include "step_kernels.h"

namespace edgecap {
namespace {

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Wholes __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

#define EDGECAP_INLINE static inline __attribute__((always_inline))

EDGECAP_INLINE void Load(const float* from, Floats* to) { std::memcpy(to, from, sizeof(*to)); }

EDGECAP_INLINE void Load(const uint16_t* from, Floats* to) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  const Wholes bits = __builtin_convertvector(halves, Wholes) << 16;
  std::memcpy(to, &bits, sizeof(*to));
}

template <typename Weight, int kRows, int kBlocks>
EDGECAP_INLINE void Tile(const Weight* weights, int depth, int inputs, const float* x, int stride,
                         float* result) {
  Floats sums[kRows][kBlocks] = {};
  for (int i = 0; i < inputs; ++i) {
    Floats w[kBlocks];
    EDGECAP_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      Load(weights + (static_cast<size_t>(b) * depth + i) * kLanes, &w[b]);
    }
    EDGECAP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const float value = x[static_cast<size_t>(r) * stride + i];
      EDGECAP_UNROLL
      for (int b = 0; b < kBlocks; ++b) sums[r][b] += w[b] * value;
    }
  }
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int b = 0; b < kBlocks; ++b) {
      std::memcpy(result + r * kTileOutputs + b * kLanes, &sums[r][b], sizeof(Floats));
    }
  }
}

// Whole tiles at once, what is left over block by block.
template <typename Weight, int kRows>
EDGECAP_INLINE void Blocks(const Weight* weights, int depth, int inputs, int blocks, const float* x,
                           int stride, float* result) {
  if (blocks == kTileBlocks) {
    Tile<Weight, kRows, kTileBlocks>(weights, depth, inputs, x, stride, result);
    return;
  }
  for (int b = 0; b < blocks; ++b) {
    Tile<Weight, kRows, 1>(weights + static_cast<size_t>(b) * depth * kLanes, depth, inputs, x,
                           stride, result + b * kLanes);
  }
}

template <typename Weight>
EDGECAP_INLINE void Rows(const Weight* weights, int depth, int inputs, int blocks, const float* x,
                         int stride, int rows, float* result) {
  switch (rows) {
    case 1:
      return Blocks<Weight, 1>(weights, depth, inputs, blocks, x, stride, result);
    case 2:
      return Blocks<Weight, 2>(weights, depth, inputs, blocks, x, stride, result);
    case 3:
      return Blocks<Weight, 3>(weights, depth, inputs, blocks, x, stride, result);
    default:
      return Blocks<Weight, 4>(weights, depth, inputs, blocks, x, stride, result);
  }
}

EDGECAP_STEP_CLONES void Floats32(const float* weights, int depth, int inputs, int blocks,
                                  const float* x, int stride, int rows, float* result) {
  Rows(weights, depth, inputs, blocks, x, stride, rows, result);
}

EDGECAP_STEP_CLONES void Floats16(const uint16_t* weights, int depth, int inputs, int blocks,
                                  const float* x, int stride, int rows, float* result) {
  Rows(weights, depth, inputs, blocks, x, stride, rows, result);
}

}  // namespace

void FloatTile(const float* weights, int depth, int inputs, int blocks, const float* x, int stride,
               int rows, float* result) {
  Floats32(weights, depth, inputs, blocks, x, stride, rows, result);
}

void FloatTile(const Matrix& m, int first_block, int blocks, const float* x, int stride, int rows,
               float* result) {
  const size_t start = static_cast<size_t>(first_block) * m.depth * kLanes;
  switch (m.precision) {
    case Precision::kBfloat16:
      return Floats16(m.weights.as<uint16_t>() + start, m.depth, m.inputs, blocks, x, stride, rows,
                      result);
    default:
      return Floats32(m.weights.as<float>() + start, m.depth, m.inputs, blocks, x, stride, rows,
                      result);
  }
}

}  // namespace edgecap
