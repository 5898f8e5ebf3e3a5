// What a row said so far, and which tokens the processors touch because of it.
#pragma once

#include "beam_list.cuh"

namespace edgecap::gpu {

// Token i of the row's sequence; 0 is BOS, `position` the newest.
__device__ __forceinline__ int HistoryToken(const BeamView& v, int row, int position, int i) {
  if (i == 0) return v.shape.bos;
  const int step = i - 1;
  const int first = row - row % v.shape.beams;
  const int rows = v.shape.batch * v.shape.beams;
  // The row that said it is the one the path leaves at the step after.
  const int at = i == position
                     ? row
                     : first + v.origin[static_cast<size_t>(row) * v.shape.positions + step + 1];
  return v.step_tokens[static_cast<size_t>(step) * rows + at];
}

// Whether sequence[i] may not come next, for the n-gram it would end was there before.
__device__ __forceinline__ bool EndsNgram(const int* sequence, int length, int i, int n) {
  if (n == 0 || length < n || i < n - 1) return false;
  for (int j = 1; j < n; ++j) {
    if (sequence[i - j] != sequence[length - j]) return false;
  }
  return true;
}

// The tokens a processor touches in one row at one step.
struct Touched {
  const int* sequence;  // [length] BOS and what the row said, where the processors look at it
  int length;           // 0 where they do not
  int ngram;
  bool penalises;
  int blocked_eos;  // -1: EOS may come
  const uint32_t* suppressed;

  __device__ bool Banned(int token) const {
    if (token == blocked_eos || (suppressed[token >> 5] >> (token & 31) & 1u)) return true;
    if (ngram == 0) return false;
    for (int i = ngram - 1; i < length; ++i) {
      if (sequence[i] == token && EndsNgram(sequence, length, i, ngram)) return true;
    }
    return false;
  }
  __device__ bool Penalised(int token) const {
    if (!penalises) return false;
    for (int i = 0; i < length; ++i) {
      if (sequence[i] == token) return true;
    }
    return false;
  }
  __device__ bool operator()(int token) const { return Penalised(token) || Banned(token); }
};

// Loads the row's sequence to `sequence` (room for limit + 1), by `threads` threads of which this
// is number `thread`; they must meet (__syncthreads, __syncwarp) before they use what it gives.
__device__ __forceinline__ Touched LoadTouched(const BeamView& v, int row, int position,
                                               int* sequence, int thread, int threads) {
  Touched touched;
  touched.sequence = sequence;
  touched.length = UsesHistory(v.shape) ? position + 1 : 0;
  touched.ngram = v.shape.no_repeat_ngram_size;
  touched.penalises = v.shape.repetition_penalty != 1.0f;
  touched.blocked_eos = position < v.shape.min_new_tokens ? v.shape.eos : -1;
  touched.suppressed = v.suppressed;
  for (int i = thread; i < touched.length; i += threads) {
    sequence[i] = HistoryToken(v, row, position, i);
  }
  return touched;
}

__device__ __forceinline__ float* PenalisedOf(const BeamView& v, int row) {
  return v.penalised + static_cast<size_t>(row) * (v.shape.limit + 1);
}

// Keskar et al. 2019, as transformers has it.
__device__ __forceinline__ float Penalise(float value, float penalty) {
  return value < 0.0f ? __fmul_rn(value, penalty) : __fdiv_rn(value, penalty);
}

}  // namespace edgecap::gpu
