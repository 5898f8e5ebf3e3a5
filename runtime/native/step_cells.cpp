#include "step_cells.h"

#include "step_clones.h"
#include "step_math.h"

namespace edgecap {

EDGECAP_STEP_CLONES void LstmCell(const float* gates, const float* old_cell, int hidden,
                                  float* state, float* cell) {
  const float* enter = gates;
  const float* forget = gates + hidden;
  const float* candidate = gates + 2 * hidden;
  const float* leave = gates + 3 * hidden;
  for (int i = 0; i < hidden; ++i) {
    const float kept = Sigmoid(forget[i]) * old_cell[i];
    const float next = kept + Sigmoid(enter[i]) * Tanh(candidate[i]);
    cell[i] = next;
    state[i] = Sigmoid(leave[i]) * Tanh(next);
  }
}

EDGECAP_STEP_CLONES void GruCell(const float* of_input, const float* of_state,
                                 const float* old_state, int hidden, float* state) {
  for (int i = 0; i < hidden; ++i) {
    const float reset = Sigmoid(of_input[i] + of_state[i]);
    const float keep = Sigmoid(of_input[hidden + i] + of_state[hidden + i]);
    const float next = Tanh(of_input[2 * hidden + i] + reset * of_state[2 * hidden + i]);
    state[i] = next + keep * (old_state[i] - next);
  }
}

EDGECAP_STEP_CLONES float TanhDot(const float* a, const float* b, const float* weight, int count) {
  float lanes[kLanes] = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += weight[i + j] * Tanh(a[i + j] + b[i + j]);
  }
  for (int j = 0; i + j < count; ++j) lanes[j] += weight[i + j] * Tanh(a[i + j] + b[i + j]);
  return Total(lanes);
}

EDGECAP_STEP_CLONES void Gate(float gate, float* x, int count) {
  const float share = Sigmoid(gate);
  for (int i = 0; i < count; ++i) x[i] *= share;
}

}  // namespace edgecap
