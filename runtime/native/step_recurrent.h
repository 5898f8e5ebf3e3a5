// An LSTM or GRU decoder on the CPU, with additive attention over the picture (Bahdanau et al.
// 2015, Xu et al. 2015) or without; see docs/cpu_engine.md.
#pragma once

#include <cstdint>
#include <vector>

#include "step_kernels.h"
#include "step_product.h"
#include "step_run.h"

namespace edgecap {

// Gates lie in torch's order: i, f, g, o of an LSTM, r, z, n of a GRU.
struct RecurrentModel {
  bool lstm = true;
  int vocab = 0;             // V
  int positions = 0;         // T
  int width = 0;             // E, of a word
  int hidden = 0;            // H
  std::vector<float> words;  // [V, E]
  Matrix inputs;             // [G * H, E]
  Matrix recurrent;          // [G * H, H]
  Matrix head;               // [V, H], or [V, E] with attention
  // Attention; none where `places` is 0.
  int places = 0;            // N annotations
  int annotation = 0;        // D, of an annotation
  int scores = 0;            // A, of its part of the scores
  Matrix query;              // [A + 1, H]: the state's part of the scores, and the context's gate
  std::vector<float> score;  // [A]
  Matrix from_context;       // [G * H, D]
  Matrix read_state;         // [E, H]
  Matrix read_context;       // [E, D]

  int gates() const { return (lstm ? 4 : 3) * hidden; }
  // Throws std::invalid_argument for sizes that do not fit together.
  void Check() const;
};

class RecurrentRun final : public StepRun {
 public:
  RecurrentRun(const RecurrentModel& model, StepPool& pool, const WholeKernel& kernel, int batch,
               int beams);

  // The first state, [B, H]; `cell` is null for a GRU. Copied.
  void SetState(const float* hidden, const float* cell);
  // Annotations [B, N, D] and their part of the scores [B, N, A]. Copied.
  void SetAnnotations(const float* annotations, const float* scores);

 private:
  const float* Take(const int64_t* tokens, const int64_t* parents, int position,
                    const uint8_t* ancestry, LogitTile* tiles) override;
  void Look();
  void ScorePlaces(int part);
  void MixPlaces(int row);

  const RecurrentModel& model_;
  Products products_;
  const int annotation_blocks_;  // of 16 values of an annotation
  const int share_stride_;
  Aligned state_;        // [R, H]
  Aligned cell_;         // [R, H]
  Aligned old_state_;    // [R, H], of the rows' parents
  Aligned old_cell_;     // [R, H]
  Aligned word_;         // [R, E]
  Aligned gates_;        // [R, G * H]
  Aligned more_gates_;   // [R, G * H]: a GRU's part of the state
  Aligned query_;        // [R, A + 1]
  Aligned shares_;       // [R, share_stride]
  Aligned context_;      // [R, D]
  Aligned logits_;       // [R, logits_stride]
  Aligned annotations_;  // [B, blocks of D, N, 16]
  Aligned scores_;       // [B, N, A]
};

}  // namespace edgecap
