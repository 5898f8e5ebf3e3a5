// Products of all rows of a run with packed matrices, shared out to a pool's threads.
#pragma once

#include <cstdint>
#include <vector>

#include "logit_tiles.h"
#include "step_kernels.h"
#include "step_pool.h"
#include "step_rows.h"

namespace edgecap {

class Products {
 public:
  // widest : the most inputs that a matrix has
  Products(StepPool& pool, const WholeKernel& kernel, int rows, int widest);

  // out [rows, stride] becomes, or with `finish.add` gains, the product of x [rows, inputs].
  // tiles : null, or [tiles, rows] that become the sums of out's tiles
  void Run(const Matrix& matrix, const float* x, float* out, int stride, Finish finish,
           LogitTile* tiles = nullptr);

 private:
  void Prepare(const Matrix& matrix, const float* x);

  StepPool& pool_;
  const WholeKernel& kernel_;
  const int rows_;
  const int whole_stride_;
  Aligned whole_;  // [rows, whole_stride] of int8
  std::vector<WholeRow> whole_rows_;
  std::vector<int32_t> whole_sums_;
};

}  // namespace edgecap
