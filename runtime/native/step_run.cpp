#include "step_run.h"

#include <chrono>
#include <stdexcept>

namespace edgecap {

StepRun::StepRun(StepPool& pool, int batch, int beams, int vocab, int positions)
    : pool_(pool),
      batch_(batch),
      beams_(beams),
      rows_(batch * beams),
      vocab_(vocab),
      positions_(positions),
      logits_stride_(Blocks(vocab) * kLanes) {
  if (batch < 1 || batch > kMaxBatch || beams < 1 || beams > BeamSearch::kMaxBeams) {
    throw std::invalid_argument("give 1 to 4096 pictures and 1 to 16 beams");
  }
  tiles_ = Aligned(static_cast<size_t>(LogitTiles(vocab)) * rows_ * sizeof(LogitTile));
}

const float* StepRun::Step(const int64_t* tokens, const int64_t* parents, int position,
                           const uint8_t* ancestry, LogitTile* tiles) {
  if (position < 0 || position >= positions_) {
    throw std::out_of_range("the model has no such position");
  }
  for (int row = 0; row < rows_; ++row) {
    if (tokens[row] < 0 || tokens[row] >= vocab_) {
      throw std::out_of_range("a token is not of the vocabulary");
    }
    if (parents[row] < 0 || parents[row] >= rows_) {
      throw std::out_of_range("a parent is no row");
    }
  }
  return Take(tokens, parents, position, ancestry, tiles);
}

bool StepRun::Advance(BeamSearch* search, const BeamBuffers& buffers, int limit, double* seconds) {
  using Clock = std::chrono::steady_clock;
  const StepPool::Awake awake(pool_);
  LogitTile* tiles = tiles_.as<LogitTile>();
  for (int taken = 0; taken < limit; ++taken) {
    const Clock::time_point start = Clock::now();
    const float* logits =
        Step(buffers.tokens, buffers.parents, search->position(), buffers.ancestry, tiles);
    *seconds += std::chrono::duration<double>(Clock::now() - start).count();
    if (search->Step(logits, logits_stride_, tiles)) return true;
  }
  return false;
}

}  // namespace edgecap
