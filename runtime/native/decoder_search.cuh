// The beginning and the end of a search that runs on the device as a whole: the first state of the
// beams, and hypotheses walked back from the pool.
#pragma once

#include "beam_state.cuh"

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

// What a decode brings back, in one piece: the steps taken, then [B, K] results of ResultBytes.
inline size_t OutcomeBytes(const BeamShape& s) {
  return sizeof(ResultHead) + static_cast<size_t>(s.batch) * s.beams * ResultBytes(s);
}

// Grid: any; a thread walks one hypothesis back.
__global__ void __launch_bounds__(kSearchThreads)
    EndSearchKernel(BeamView v, unsigned char* outcome) {
  const int rows = v.shape.batch * v.shape.beams;
  const int start = blockIdx.x * kSearchThreads + threadIdx.x;
  if (start == 0) *reinterpret_cast<ResultHead*>(outcome) = {0.0f, v.control->position};
  unsigned char* results = outcome + sizeof(ResultHead);
  for (int i = start; i < rows; i += gridDim.x * kSearchThreads) {
    ResultHead* head = reinterpret_cast<ResultHead*>(results + i * ResultBytes(v.shape));
    int* tokens = reinterpret_cast<int*>(head + 1);
    float* logprobs = reinterpret_cast<float*>(tokens + v.shape.limit);
    const Finished last = v.pool[i];
    for (int at = 0; at < v.shape.limit; ++at) {
      tokens[at] = 0;
      logprobs[at] = 0.0f;
    }
    if (!last.real) {
      *head = {kNothing, 0};
      continue;
    }
    *head = {last.score, last.step + 1};
    tokens[last.step] = last.token;
    logprobs[last.step] = last.logprob;
    int row = last.row;
    for (int step = last.step - 1; step >= 0; --step) {
      const size_t at = static_cast<size_t>(step) * rows + row;
      tokens[step] = v.step_tokens[at];
      logprobs[step] = v.step_logprobs[at];
      row = v.step_parents[at];
    }
  }
}

}  // namespace edgecap::gpu
