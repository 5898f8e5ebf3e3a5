// What a search comes to, whether it is over or was stopped: hypotheses walked back, best first.
#pragma once

#include "beam_state.cuh"

namespace edgecap::gpu {

// Hypothesis `rank` of an image: from the pool when it is done; else finished ones, then running.
__device__ inline Finished HypothesisOf(const BeamView& v, int image, int rank) {
  const int beams = v.shape.beams, rows = v.shape.batch * beams;
  const Finished* pool = v.pool + image * beams;
  if (v.done[image]) return pool[rank];
  for (int i = 0; i < beams; ++i) {
    if (pool[i].real && rank-- == 0) return pool[i];
  }
  const int row = image * beams + rank, position = v.control->position;
  if (position == 0 || !(v.running[row] > kNothing / 2)) return {kNothing, 0.0f, 0, 0, 0, 0};
  const size_t at = static_cast<size_t>(position - 1) * rows + row;
  return {__fdiv_rn(v.running[row], v.norms[position]),
          v.step_logprobs[at],
          v.step_parents[at],
          v.step_tokens[at],
          position - 1,
          1};
}

// Writes hypothesis `rank` of an image to `result`, of ResultBytes; what it lacks of the limit is
// padding.
__device__ inline void WriteHypothesis(const BeamView& v, int image, int rank,
                                       unsigned char* result) {
  const int rows = v.shape.batch * v.shape.beams;
  ResultHead* head = reinterpret_cast<ResultHead*>(result);
  int* tokens = reinterpret_cast<int*>(head + 1);
  float* logprobs = reinterpret_cast<float*>(tokens + v.shape.limit);
  for (int i = 0; i < v.shape.limit; ++i) {
    tokens[i] = v.shape.pad;
    logprobs[i] = 0.0f;
  }
  const Finished last = HypothesisOf(v, image, rank);
  if (!last.real) {
    *head = {kNothing, 0};
    return;
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

}  // namespace edgecap::gpu
