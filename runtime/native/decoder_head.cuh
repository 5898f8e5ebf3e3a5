// The vocabulary projection, fused with the first stage of the beam step: a block computes the
// logits of its part of the vocabulary for all rows in shared memory and leaves partial results, so
// that logits never reach memory. With one image the last block done goes on with the selection;
// with more, a second launch selects, a block an image.
#pragma once

#include "beam_select.cuh"
#include "decoder_product.cuh"

#ifndef __CUDACC__
#define __grid_constant__
#endif

// Whether graphs have WHILE nodes; set to 0 it builds what CUDA before 12.4 gets.
#ifndef EDGECAP_WHILE_NODES
#if defined(__CUDACC__) && CUDART_VERSION >= 12040
#define EDGECAP_WHILE_NODES 1
#else
#define EDGECAP_WHILE_NODES 0
#endif
#endif

namespace edgecap::gpu {

constexpr int kHeadFloats = 4096;   // logits of a block, and inputs beside them
constexpr int kMaxHeadLimit = 500;  // tokens of a caption whose history the warps of a block hold

// The WHILE node of the graph that a launch is part of; unused without one.
struct LoopHandle {
  unsigned long long handle;
  int used;
};

__device__ __forceinline__ void TellLoop(const LoopHandle& loop, int going) {
#if EDGECAP_WHILE_NODES
  if (loop.used && going >= 0) cudaGraphSetConditional(loop.handle, going);
#else
  (void)loop;
  (void)going;
#endif
}

// Shared floats: as for a product of `chunk`, whose inputs give way to the warps' sequences, then
// logits [R, part].
inline size_t HeadInputFloats(int row_tile, int chunk, int limit) {
  const size_t inputs = static_cast<size_t>(row_tile) * chunk;
  const size_t sequences = (static_cast<size_t>(kStepWarps) * (limit + 1) + 3) / 4 * 4;
  return inputs > sequences ? inputs : sequences;
}

inline size_t HeadSharedBytes(int row_tile, int chunk, int limit, int rows, int part) {
  return ProductSharedBytes(row_tile, 0) +
         sizeof(float) *
             (HeadInputFloats(row_tile, chunk, limit) + static_cast<size_t>(rows) * part);
}

// Partial results of this block's part, a warp a row. Not inlined, as the selection below: every
// head kernel has both.
__device__ __noinline__ inline void WritePart(const BeamView& v, int position, const float* logits,
                                              int part, int* sequences) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first = blockIdx.x * part, count = min(part, v.shape.vocab - first);
  int* sequence = sequences + warp * (v.shape.limit + 1);
  for (int row = warp; row < v.shape.batch * v.shape.beams; row += kStepWarps) {
    const float* own = logits + row * part;
    __syncwarp();
    const Touched touched = LoadTouched(v, row, position, sequence, lane, 32);
    __syncwarp();
    if (touched.penalises) {
      for (int i = lane; i < touched.length; i += 32) {
        const int at = sequence[i] - first;
        if (at >= 0 && at < count) PenalisedOf(v, row)[i] = Clean(own[at]);
      }
    }
    WarpPartial partial(v.shape.beams);
    for (int base = 0; base < count; base += 64) {
      float x[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int at = base + 2 * lane + j;
        x[j] = at < count ? Clean(own[at]) : NegativeInfinity();
      }
      partial.Add(x, first + base + 2 * lane, touched);
    }
    FinishWarp(v, row, blockIdx.x, partial);
  }
}

__device__ __noinline__ inline int SelectWithoutLogits(const BeamView& v, int image, int position,
                                                       int* sequences,
                                                       SelectExchange<kStepWarps>& exchange) {
  return SelectImage<kStepWarps>(v, image, position, NoLogits{}, sequences, exchange);
}

// Grid: v.shape.parts blocks of `part` tokens each, a multiple of 64.
template <typename W, int RT>
__global__ void __launch_bounds__(kStepThreads, 2)
    HeadKernel(Product<W> p, const __grid_constant__ BeamView v, int part, int input_floats,
               LoopHandle loop) {
  __shared__ SelectExchange<kStepWarps> exchange;
  __shared__ int is_last;
  if (!v.control->keep_going) return;
  const int position = v.control->position;
  const int rows = v.shape.batch * v.shape.beams;
  const ProductShared shared = Divide<RT>(DynamicShared<float>());
  float* logits = shared.x + input_floats;
  if (p.gamma != nullptr) Measure(p, shared.stats);
  const int channels = kStepWarps * kTile;
  const bool stays = rows <= RT && p.stride <= p.chunk;  // inputs are fetched once
  for (int pass = 0; pass < part; pass += channels) {
    const int first = blockIdx.x * part + pass;
    if (first >= p.outputs) break;
    for (int row = 0; row < rows; row += RT) {
      Multiply<W, RT>(p, first, row, stays && pass > 0, shared);
      for (int i = threadIdx.x; i < channels * RT; i += kStepThreads) {
        const int c = i % channels, r = i / channels;
        if (row + r >= rows || first + c >= p.outputs) continue;
        logits[(row + r) * part + pass + c] = Total<W, RT>(p, shared.sums, first, c, r);
      }
    }
  }
  __syncthreads();
  int* sequences = reinterpret_cast<int*>(shared.x);
  WritePart(v, position, logits, part, sequences);

  if (v.shape.batch > 1) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(&v.arrived[0], 1u) + 1 == gridDim.x;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  if (threadIdx.x == 0) v.arrived[0] = 0;
  TellLoop(loop, SelectWithoutLogits(v, 0, position, sequences, exchange));
}

// Grid: B. Shared: the warps' sequences.
__global__ void __launch_bounds__(kStepThreads, 2)
    SelectKernel(const __grid_constant__ BeamView v, LoopHandle loop) {
  __shared__ SelectExchange<kStepWarps> exchange;
  if (!v.control->keep_going) return;
  const int position = v.control->position;
  TellLoop(loop, SelectWithoutLogits(v, blockIdx.x, position, DynamicShared<int>(), exchange));
}

}  // namespace edgecap::gpu
