// From the C interface's configuration to the shapes that kernels get; checks every number.
#pragma once

#include <cmath>

#include "beam_topk.cuh"
#include "edgecap_cuda.h"

namespace edgecap::gpu {

inline int Failed(cudaError_t error) {
  return error == cudaSuccess ? EDGECAP_OK : EDGECAP_CUDA_ERROR + static_cast<int>(error);
}

// Parts of a row: three blocks for each multiprocessor where rows are few, but none shorter than
// 1024 logits, for a part costs a merge.
inline int DeriveParts(int rows, int vocab, int multiprocessors) {
  constexpr int kBlocksPerProcessor = 3, kShortest = 1024;
  const int wanted = (kBlocksPerProcessor * multiprocessors + rows - 1) / rows;
  const int most = (vocab + kShortest - 1) / kShortest;
  return wanted < most ? wanted : most;
}

inline int CheckConfig(const edgecap_beam_config& c) {
  if (c.batch < 1 || c.batch > kMaxBatch) return EDGECAP_BATCH;
  if (c.beams < 1 || c.beams > kMaxBeams) return EDGECAP_BEAMS;
  if (c.vocab < 2 || c.vocab > kMaxVocab) return EDGECAP_VOCAB;
  if (c.positions < 1 || c.positions > kMaxPositions) return EDGECAP_POSITIONS;
  if (c.max_new_tokens < 1 || c.max_new_tokens > c.positions || c.min_new_tokens < 0 ||
      c.min_new_tokens > c.max_new_tokens) {
    return EDGECAP_LENGTHS;
  }
  if (c.no_repeat_ngram_size < 0) return EDGECAP_NGRAM;
  if (!(c.repetition_penalty > 0.0f) || std::isinf(c.repetition_penalty)) return EDGECAP_REPETITION;
  if (!(std::fabs(c.length_penalty) <= 10.0)) return EDGECAP_LENGTH_PENALTY;
  if (c.early_stopping < 0 || c.early_stopping > 2) return EDGECAP_EARLY_STOPPING;
  if (c.bos < 0 || c.eos < 0 || c.eos >= c.vocab || c.pad < 0) return EDGECAP_SPECIAL;
  if (c.suppress_count < 0 || (c.suppress_count > 0 && c.suppress_tokens == nullptr)) {
    return EDGECAP_SUPPRESS;
  }
  if (c.parts < 0 || c.parts > kMaxParts || c.multiprocessors < 0) return EDGECAP_PARTS;
  return EDGECAP_OK;
}

// Gives EDGECAP_OK or what is wrong.
inline int MakeShape(const edgecap_beam_config* config, BeamShape* shape) {
  if (config == nullptr) return EDGECAP_NULL;
  const edgecap_beam_config& c = *config;
  if (const int code = CheckConfig(c)) return code;
  int parts = c.parts;
  if (parts == 0) {
    int multiprocessors = c.multiprocessors;
    if (multiprocessors == 0) {
      int device = 0;
      if (const int code = Failed(cudaGetDevice(&device))) return code;
      if (const int code = Failed(
              cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device))) {
        return code;
      }
    }
    parts = DeriveParts(c.batch * c.beams, c.vocab, multiprocessors);
  }
  *shape = {};
  shape->batch = c.batch;
  shape->beams = c.beams;
  shape->vocab = c.vocab;
  shape->positions = c.positions;
  shape->limit = c.max_new_tokens;
  shape->min_new_tokens = c.min_new_tokens;
  shape->no_repeat_ngram_size = c.no_repeat_ngram_size;
  shape->early_stopping = c.early_stopping;
  shape->bound_at_limit = c.early_stopping == 2 && c.length_penalty > 0.0;
  shape->bos = c.bos;
  shape->eos = c.eos;
  shape->pad = c.pad;
  shape->parts = parts;
  shape->has_ancestry = c.ancestry != 0;
  shape->repetition_penalty = c.repetition_penalty;
  return EDGECAP_OK;
}

// The view of a state in device memory.
inline int MakeView(const edgecap_beam_config* config, const void* state, BeamView* view) {
  BeamShape shape;
  if (const int code = MakeShape(config, &shape)) return code;
  if (state == nullptr) return EDGECAP_NULL;
  const auto base = reinterpret_cast<uintptr_t>(state);
  if (base % 256 != 0) return EDGECAP_ALIGNMENT;
  size_t bytes = 0;
  *view = Arrange(shape, base, &bytes);
  return EDGECAP_OK;
}

}  // namespace edgecap::gpu
