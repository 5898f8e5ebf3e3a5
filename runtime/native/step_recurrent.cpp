#include "step_recurrent.h"

#include <algorithm>
#include <stdexcept>

#include "step_cells.h"
#include "step_rows.h"

namespace edgecap {
namespace {

constexpr int kPlacesOfPart = 8;  // annotations that a thread scores at a time

void Require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

bool Fits(const Matrix& m, int outputs, int inputs) {
  return m.outputs == outputs && m.inputs == inputs;
}

int Widest(const RecurrentModel& m) { return std::max({m.width, m.hidden, m.annotation}); }

Aligned Floats(size_t count) { return Aligned(count * sizeof(float)); }

}  // namespace

void RecurrentModel::Check() const {
  Require(vocab > 1 && positions > 0 && width > 0 && hidden > 0, "sizes must be above 0");
  Require(places >= 0 && annotation >= 0 && scores >= 0, "sizes must not be below 0");
  Require(words.size() == static_cast<size_t>(vocab) * width, "words are not [V, E]");
  Require(Fits(inputs, gates(), width) && Fits(recurrent, gates(), hidden),
          "the cell is not [G * H, E] and [G * H, H]");
  Require(Fits(head, vocab, places > 0 ? width : hidden), "the head does not read the state");
  if (places == 0) return;
  Require(Fits(query, scores + 1, hidden) && score.size() == static_cast<size_t>(scores),
          "the query is not [A + 1, H] or the score not [A]");
  Require(Fits(from_context, gates(), annotation) && Fits(read_state, width, hidden) &&
              Fits(read_context, width, annotation),
          "what reads the context does not fit it");
}

RecurrentRun::RecurrentRun(const RecurrentModel& model, StepPool& pool, const WholeKernel& kernel,
                           int batch, int beams)
    : StepRun(pool, batch, beams, model.vocab, model.positions),
      model_(model),
      products_(pool, kernel, batch * beams, Widest(model)),
      annotation_blocks_(Blocks(model.annotation)),
      share_stride_(Blocks(model.places) * kLanes) {
  const size_t rows = rows_;
  for (Aligned* one : {&state_, &cell_, &old_state_, &old_cell_})
    *one = Floats(rows * model.hidden);
  word_ = Floats(rows * model.width);
  gates_ = Floats(rows * model.gates());
  more_gates_ = Floats(model.lstm ? 0 : rows * model.gates());
  logits_ = Floats(rows * logits_stride_);
  if (model.places == 0) return;
  query_ = Floats(rows * (model.scores + 1));
  shares_ = Floats(rows * share_stride_);
  context_ = Floats(rows * model.annotation);
  const size_t places = static_cast<size_t>(batch) * model.places;
  annotations_ = Floats(places * annotation_blocks_ * kLanes);
  scores_ = Floats(places * model.scores);
}

void RecurrentRun::SetState(const float* hidden, const float* cell) {
  if ((cell != nullptr) != model_.lstm) {
    throw std::invalid_argument("an LSTM has a cell, a GRU has none");
  }
  const size_t size = model_.hidden;
  for (int row = 0; row < rows_; ++row) {
    const size_t from = row / beams_ * size;
    std::copy(hidden + from, hidden + from + size, state_.as<float>() + row * size);
    if (cell != nullptr) std::copy(cell + from, cell + from + size, cell_.as<float>() + row * size);
  }
}

void RecurrentRun::SetAnnotations(const float* annotations, const float* scores) {
  if (model_.places == 0) throw std::invalid_argument("the model has no annotations");
  const size_t count = static_cast<size_t>(batch_) * model_.places;
  std::copy(scores, scores + count * model_.scores, scores_.as<float>());
  for (int image = 0; image < batch_; ++image) {
    for (int n = 0; n < model_.places; ++n) {
      const float* from =
          annotations + (static_cast<size_t>(image) * model_.places + n) * model_.annotation;
      for (int c = 0; c < model_.annotation; c += kLanes) {
        const size_t block = static_cast<size_t>(image) * annotation_blocks_ + c / kLanes;
        std::copy(from + c, from + std::min(c + kLanes, model_.annotation),
                  annotations_.as<float>() + (block * model_.places + n) * kLanes);
      }
    }
  }
}

const float* RecurrentRun::Take(const int64_t* tokens, const int64_t* parents, int, const uint8_t*,
                                LogitTile* tiles) {
  const size_t hidden = model_.hidden;
  const size_t width = model_.width;
  const int gates = model_.gates();
  for (int row = 0; row < rows_; ++row) {
    const float* state = state_.as<float>() + parents[row] * hidden;
    std::copy(state, state + hidden, old_state_.as<float>() + row * hidden);
    const float* cell = cell_.as<float>() + parents[row] * hidden;
    if (model_.lstm) std::copy(cell, cell + hidden, old_cell_.as<float>() + row * hidden);
    const float* word = model_.words.data() + tokens[row] * width;
    std::copy(word, word + width, word_.as<float>() + row * width);
  }
  float* of_input = gates_.as<float>();
  float* of_state = model_.lstm ? of_input : more_gates_.as<float>();
  products_.Run(model_.inputs, word_.as<float>(), of_input, gates, {});
  products_.Run(model_.recurrent, old_state_.as<float>(), of_state, gates,
                {Activation::kNone, model_.lstm});
  if (model_.places > 0) {
    Look();
    products_.Run(model_.from_context, context_.as<float>(), of_input, gates,
                  {Activation::kNone, true});
  }
  pool_.Run(rows_, [&](int row) {
    const size_t at = row * hidden;
    const size_t gate = static_cast<size_t>(row) * gates;
    if (model_.lstm) {
      LstmCell(of_input + gate, old_cell_.as<float>() + at, model_.hidden, state_.as<float>() + at,
               cell_.as<float>() + at);
    } else {
      GruCell(of_input + gate, of_state + gate, old_state_.as<float>() + at, model_.hidden,
              state_.as<float>() + at);
    }
  });
  const float* read = state_.as<float>();
  if (model_.places > 0) {
    float* deep = word_.as<float>();
    products_.Run(model_.read_state, read, deep, model_.width, {Activation::kNone, true});
    products_.Run(model_.read_context, context_.as<float>(), deep, model_.width,
                  {Activation::kNone, true});
    Activate(Activation::kTanh, deep, rows_ * model_.width);
    read = deep;
  }
  products_.Run(model_.head, read, logits_.as<float>(), logits_stride_, {}, tiles);
  return logits_.as<float>();
}

// The context of each row's look at its picture.
void RecurrentRun::Look() {
  products_.Run(model_.query, old_state_.as<float>(), query_.as<float>(), model_.scores + 1, {});
  const int parts = (model_.places + kPlacesOfPart - 1) / kPlacesOfPart;
  pool_.Run(rows_ * parts, [&](int part) { ScorePlaces(part); });
  pool_.Run(rows_, [&](int row) { MixPlaces(row); });
}

void RecurrentRun::ScorePlaces(int part) {
  const int parts = (model_.places + kPlacesOfPart - 1) / kPlacesOfPart;
  const int row = part / parts;
  const int first = part % parts * kPlacesOfPart;
  const float* query = query_.as<float>() + static_cast<size_t>(row) * (model_.scores + 1);
  const float* places =
      scores_.as<float>() + static_cast<size_t>(row / beams_) * model_.places * model_.scores;
  float* to = shares_.as<float>() + static_cast<size_t>(row) * share_stride_;
  for (int n = first; n < std::min(first + kPlacesOfPart, model_.places); ++n) {
    to[n] = TanhDot(query, places + static_cast<size_t>(n) * model_.scores, model_.score.data(),
                    model_.scores);
  }
}

void RecurrentRun::MixPlaces(int row) {
  alignas(64) float tile[kTileRows * kTileOutputs];
  float* shares = shares_.as<float>() + static_cast<size_t>(row) * share_stride_;
  float* context = context_.as<float>() + static_cast<size_t>(row) * model_.annotation;
  const float* annotations = annotations_.as<float>() + static_cast<size_t>(row / beams_) *
                                                            annotation_blocks_ * model_.places *
                                                            kLanes;
  Softmax(shares, model_.places, 1.0f);
  for (int block = 0; block < annotation_blocks_; block += kTileBlocks) {
    const int blocks = std::min(kTileBlocks, annotation_blocks_ - block);
    const int count = std::min(kTileOutputs, model_.annotation - block * kLanes);
    FloatTile(annotations + static_cast<size_t>(block) * model_.places * kLanes, model_.places,
              model_.places, blocks, shares, share_stride_, 1, tile);
    std::copy(tile, tile + count, context + block * kLanes);
  }
  Gate(query_.as<float>()[static_cast<size_t>(row) * (model_.scores + 1) + model_.scores], context,
       model_.annotation);
}

}  // namespace edgecap
