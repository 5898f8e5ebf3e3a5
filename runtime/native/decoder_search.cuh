// The beginning and the end of a search that runs on the device as a whole: the first state of the
// beams, and hypotheses walked back from the pool.
#pragma once

#include "beam_results.cuh"

namespace edgecap::gpu {

constexpr int kSearchThreads = 128;

// Grid: any.
__global__ void __launch_bounds__(kSearchThreads) BeginSearchKernel(BeamView v) {
  const int rows = v.shape.batch * v.shape.beams;
  const int start = blockIdx.x * kSearchThreads + threadIdx.x, step = gridDim.x * kSearchThreads;
  if (start == 0) {
    *v.control = BeamControl{0, 1, 0, 0u};
    *v.position64 = 0;
  }
  for (int row = start; row < rows; row += step) {
    v.tokens[row] = v.shape.bos;
    v.tokens64[row] = v.shape.bos;
    v.parents[row] = row;
    v.parents64[row] = row;
    // The other beams of an image start as copies of its first.
    v.running[row] = row % v.shape.beams == 0 ? 0.0f : kNothing;
    v.pool[row] = Finished{kNothing, 0.0f, 0, 0, 0, 0};
  }
  for (int image = start; image < v.shape.batch; image += step) {
    v.done[image] = 0;
    v.arrived[image] = 0;
  }
  for (int i = start; i < rows * v.shape.positions; i += step) v.origin[i] = 0;
}

// What a decode brings back, in one piece: the steps taken and whether it was stopped, then [B, K]
// results of ResultBytes.
struct OutcomeHead {
  int steps;
  int truncated;
};

inline size_t OutcomeBytes(const BeamShape& s) {
  return sizeof(OutcomeHead) + static_cast<size_t>(s.batch) * s.beams * ResultBytes(s);
}

// Grid: any; a thread walks one hypothesis back.
__global__ void __launch_bounds__(kSearchThreads)
    EndSearchKernel(BeamView v, unsigned char* outcome) {
  const int rows = v.shape.batch * v.shape.beams;
  const int start = blockIdx.x * kSearchThreads + threadIdx.x;
  const BeamControl& control = *v.control;
  if (start == 0) {
    const bool over = control.images_done == v.shape.batch || control.position == v.shape.limit;
    *reinterpret_cast<OutcomeHead*>(outcome) = {control.position, !over};
  }
  unsigned char* results = outcome + sizeof(OutcomeHead);
  for (int i = start; i < rows; i += gridDim.x * kSearchThreads) {
    const int image = i / v.shape.beams;
    WriteHypothesis(v, image, i % v.shape.beams, results + i * ResultBytes(v.shape));
  }
}

}  // namespace edgecap::gpu
