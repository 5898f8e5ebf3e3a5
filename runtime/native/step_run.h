// What one decode of B pictures with K beams needs of a decoder, whatever its family.
#pragma once

#include <cstdint>

#include "beam.h"
#include "logit_tiles.h"
#include "step_kernels.h"
#include "step_pool.h"

namespace edgecap {

constexpr int kMaxBatch = 4096;

// Allocates nothing after its set-up. Rows are computed each for itself: what one says never
// depends on which others run beside it.
class StepRun {
 public:
  // Throws std::invalid_argument for sizes that are none.
  StepRun(StepPool& pool, int batch, int beams, int vocab, int positions);
  virtual ~StepRun() = default;
  StepRun(const StepRun&) = delete;
  StepRun& operator=(const StepRun&) = delete;

  int rows() const { return rows_; }
  int batch() const { return batch_; }
  int beams() const { return beams_; }
  int vocab() const { return vocab_; }
  int positions() const { return positions_; }
  int logits_stride() const { return logits_stride_; }

  // One step: tokens and parents [R], ancestry [R, K * T]. Returns logits [R, V], rows
  // `logits_stride()` apart, valid until the next step. Throws std::out_of_range for a token, a
  // parent or a position that is none. tiles : null, or [tiles of V, R] that become their sums
  const float* Step(const int64_t* tokens, const int64_t* parents, int position,
                    const uint8_t* ancestry, LogitTile* tiles = nullptr);

  // Steps of model and search in turn, until the search is done or `limit` were taken. The three
  // are the search's buffers. Adds the seconds spent in the model's steps, which sum the logits'
  // tiles, too. Returns whether the search is done.
  bool Advance(BeamSearch* search, const BeamBuffers& buffers, int limit, double* seconds);

 protected:
  virtual const float* Take(const int64_t* tokens, const int64_t* parents, int position,
                            const uint8_t* ancestry, LogitTile* tiles) = 0;

  StepPool& pool_;
  const int batch_;
  const int beams_;
  const int rows_;
  const int vocab_;
  const int positions_;
  const int logits_stride_;
  Aligned tiles_;  // [tiles of V, R] of LogitTile
};

}  // namespace edgecap
