// What recurrent decoders do with rows of floats besides products; the same bits everywhere.
#pragma once

namespace edgecap {

// gates [4 * H] become the new state [H] and cell [H]; all but gates may be the same memory.
// Hochreiter and Schmidhuber 1997 with forget gates, as torch has it.
void LstmCell(const float* gates, const float* old_cell, int hidden, float* state, float* cell);

// Cho et al. 2014 as torch has it: gates of the inputs and of the state [3 * H] each.
void GruCell(const float* of_input, const float* of_state, const float* old_state, int hidden,
             float* state);

// weight . tanh(a + b)
float TanhDot(const float* a, const float* b, const float* weight, int count);

// x times sigmoid(gate), in place.
void Gate(float gate, float* x, int count);

}  // namespace edgecap
