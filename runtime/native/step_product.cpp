#include "step_product.h"

#include <algorithm>

namespace edgecap {
namespace {

static_assert(kTileOutputs == kLogitTile, "a tile of outputs is a tile of logits");
constexpr int kManyRows = 32;  // fewer are rounded before a thread could help

}  // namespace

Products::Products(StepPool& pool, const WholeKernel& kernel, int rows, int widest)
    : pool_(pool),
      kernel_(kernel),
      rows_(rows),
      whole_stride_((widest + 63) / 64 * 64),
      whole_(static_cast<size_t>(rows) * whole_stride_),
      whole_rows_(rows, WholeRow{0.0f, 0}),
      whole_sums_(rows, 0) {}

void Products::Prepare(const Matrix& m, const float* x) {
  const auto one = [&](int row) {
    whole_rows_[row] = Quantise(x + static_cast<size_t>(row) * m.inputs, m.inputs, m.depth,
                                whole_.as<int8_t>() + static_cast<size_t>(row) * whole_stride_);
    whole_sums_[row] = whole_rows_[row].sum;
  };
  if (rows_ < kManyRows) {
    for (int row = 0; row < rows_; ++row) one(row);
  } else {
    pool_.Run(Blocks(rows_), [&](int block) {
      for (int row = block * kLanes; row < std::min(rows_, (block + 1) * kLanes); ++row) one(row);
    });
  }
}

void Products::Run(const Matrix& m, const float* x, float* out, int stride, Finish finish,
                   LogitTile* tiles) {
  const bool whole = m.precision == Precision::kInt8;
  if (whole) Prepare(m, x);
  pool_.Run(m.tiles(), [&, whole](int tile) {
    const int block = tile * kTileBlocks;
    const int blocks = std::min(kTileBlocks, m.blocks() - block);
    const int first = block * kLanes;
    const int count = std::min(kTileOutputs, m.outputs - first);
    const float* scales = m.scales.empty() ? nullptr : m.scales.data() + first;
    const float* bias = m.bias.data() + first;
    alignas(64) float sums[kTileRows * kTileOutputs];
    alignas(64) int32_t whole_sums[kTileRows * kTileOutputs];
    for (int row = 0; row < rows_; row += kTileRows) {
      const int rows = std::min(kTileRows, rows_ - row);
      float* to = out + static_cast<size_t>(row) * stride + first;
      if (whole) {
        kernel_.product(m.weights.as<uint8_t>() + static_cast<size_t>(first) * m.depth, m.depth / 4,
                        blocks, whole_.as<int8_t>() + static_cast<size_t>(row) * whole_stride_,
                        whole_stride_, whole_sums_.data() + row, rows, whole_sums);
      } else {
        FloatTile(m, block, blocks, x + static_cast<size_t>(row) * m.inputs, m.inputs, rows, sums);
      }
      for (int r = 0; r < rows; ++r, to += stride) {
        if (whole) {
          FinishRow(whole_sums + r * kTileOutputs, scales, whole_rows_[row + r].scale, bias, count,
                    finish, to);
        } else {
          FinishRow(sums + r * kTileOutputs, scales, bias, count, finish, to);
        }
      }
      if (tiles == nullptr) continue;
      to -= static_cast<size_t>(rows) * stride;
      for (int r = 0; r < rows; ++r, to += stride) {
        tiles[static_cast<size_t>(tile) * rows_ + row + r] = SumTile(to, count);
      }
    }
  });
}

}  // namespace edgecap
