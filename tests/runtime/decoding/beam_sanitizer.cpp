// Drives the C++ beam search with random options and hostile logits, and checks what must always
// hold. Built and run under AddressSanitizer and UndefinedBehaviorSanitizer by
// test_beam_sanitizers.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <vector>

#include "beam.h"

namespace {

size_t allocations = 0;

void Check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::exit(1);
}

float Value(int kind, std::mt19937& random) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float odd[] = {std::nanf(""), kInf, -kInf, 3.4e38f, -3.4e38f, 0.0f, -0.0f, 1e-45f};
  std::uniform_real_distribution<float> plain(-8.0f, 8.0f);
  if (kind == 0) return plain(random);
  if (kind == 1) return odd[random() % 8];
  if (kind == 2) return -kInf;
  if (kind == 3) return std::nanf("");
  if (kind == 4) return plain(random) * 200.0f;  // past what single doubles hold without a maximum
  return random() % 2 ? plain(random) : odd[random() % 8];
}

std::vector<edgecap::LogitTile> Tiles(const float* logits, int rows, std::ptrdiff_t stride,
                                      int vocab) {
  std::vector<edgecap::LogitTile> tiles;
  for (int start = 0; start < vocab; start += edgecap::kLogitTile) {
    const int count = std::min(edgecap::kLogitTile, vocab - start);
    for (int row = 0; row < rows; ++row) {
      tiles.push_back(edgecap::SumTile(logits + row * stride + start, count));
    }
  }
  return tiles;
}

// A row's sum is that of long doubles, rounded.
void CheckSums(const float* logits, int rows, std::ptrdiff_t stride, int vocab,
               const std::vector<edgecap::LogitTile>& tiles) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (int row = 0; row < rows; ++row, logits += stride) {
    const edgecap::RowSum found = edgecap::SumRow(tiles.data() + row, rows, logits, vocab);
    float max = -std::numeric_limits<float>::infinity();
    for (int i = 0; i < vocab; ++i) max = std::max(max, std::min(logits[i], kLargest));
    if (std::isinf(max)) {
      Check(found.max == 0.0f && found.log_sum == 0.0f, "a row of -inf sums to nothing");
      continue;
    }
    long double total = 0.0;
    for (int i = 0; i < vocab; ++i) {
      if (std::isnan(logits[i])) continue;
      total += std::exp(static_cast<long double>(std::min(logits[i], kLargest)) - max);
    }
    Check(found.max == max, "the largest of a row");
    const double error = std::fabs(found.log_sum - static_cast<double>(std::log(total)));
    Check(error <= 1e-12 + 6e-8 * found.log_sum, "the sum is rounded once");
  }
}

void Run(std::mt19937& random) {
  edgecap::BeamConfig c;
  c.batch = 1 + random() % 3;
  c.beams = 1 + random() % edgecap::BeamSearch::kMaxBeams;
  c.vocab = 2 + random() % 150;
  c.positions = 1 + random() % 12;
  c.max_new_tokens = 1 + random() % c.positions;
  c.min_new_tokens = random() % (c.max_new_tokens + 1);
  c.no_repeat_ngram_size = random() % 5;
  const float penalties[] = {1.0f, 0.01f, 1.3f, 100.0f};
  c.repetition_penalty = penalties[random() % 4];
  const double lengths[] = {0.0, 1.0, 2.0, -1.0, 10.0, -10.0};
  c.length_penalty = lengths[random() % 6];
  c.early_stopping = static_cast<edgecap::EarlyStopping>(random() % 3);
  c.bos = random() % (c.vocab + 5);
  c.eos = random() % c.vocab;
  c.pad = random() % c.vocab;
  for (unsigned i = random() % 3; i > 0; --i) c.suppress_tokens.push_back(random() % (c.vocab + 5));

  // Heap blocks of the exact sizes, so that the sanitizer sees one element too many.
  const int rows = c.batch * c.beams;
  const size_t width = static_cast<size_t>(c.beams) * c.positions;
  std::unique_ptr<int64_t[]> tokens(new int64_t[rows]);
  std::unique_ptr<int64_t[]> parents(new int64_t[rows]);
  std::unique_ptr<uint8_t[]> ancestry(new uint8_t[rows * width]);
  edgecap::BeamSearch search(c, {tokens.get(), parents.get(), ancestry.get()});
  std::vector<int64_t> other_tokens(rows);
  std::vector<int64_t> other_parents(rows);
  std::vector<uint8_t> other_ancestry(rows * width);
  edgecap::BeamSearch other(c, {other_tokens.data(), other_parents.data(), other_ancestry.data()});

  const std::ptrdiff_t stride = c.vocab + random() % 3;
  const size_t size = static_cast<size_t>(rows - 1) * stride + c.vocab;
  const int kind = random() % 6;
  int steps = 0;
  for (bool done = false; !done;) {
    std::unique_ptr<float[]> logits(new float[size]);
    for (size_t i = 0; i < size; ++i) logits[i] = Value(kind, random);
    const size_t before = allocations;
    done = search.Step(logits.get(), stride);
    Check(allocations == before, "a step allocates nothing");
    const std::vector<edgecap::LogitTile> tiles = Tiles(logits.get(), rows, stride, c.vocab);
    CheckSums(logits.get(), rows, stride, c.vocab, tiles);
    Check(other.Step(logits.get(), stride, tiles.data()) == done, "given sums change nothing");
    for (int row = 0; row < rows; ++row) {
      Check(tokens[row] == other_tokens[row] && parents[row] == other_parents[row],
            "given sums change no beam");
    }
    Check(search.position() == ++steps, "a step moves on by one");
    Check(steps <= c.max_new_tokens, "the search ends");
    for (int row = 0; row < rows; ++row) {
      Check(tokens[row] >= 0 && tokens[row] < c.vocab, "tokens are in the vocabulary");
      Check(parents[row] / c.beams == row / c.beams, "parents stay within the picture");
      size_t marked = 0;
      for (size_t i = 0; i < width; ++i) marked += ancestry[row * width + i];
      Check(marked == static_cast<size_t>(steps), "one slot of ancestry per step");
    }
    std::vector<int64_t> ids(c.max_new_tokens);
    std::vector<float> logprobs(c.max_new_tokens);
    for (int image = 0; image < c.batch; ++image) {
      for (int rank = 0; rank < c.beams; ++rank) {
        float score = std::nanf("");
        const int length = search.Hypothesis(image, rank, ids.data(), logprobs.data(), &score);
        Check(length >= 0 && length <= steps, "no hypothesis is longer than the search");
        Check(score <= 0.0f, "scores are log-probabilities");
        for (int i = 0; i < length; ++i) {
          Check(ids[i] >= 0 && ids[i] < c.vocab, "hypotheses are in the vocabulary");
          // Where too few tokens are possible a beam may outlive its EOS, 1e9 below all others.
          Check(i + 1 == length || ids[i] != c.eos || kind > 0 || c.vocab < 64, "EOS stands last");
          Check(logprobs[i] <= 0.0f, "log-probabilities are not positive");
        }
      }
    }
  }
  Check(search.Step(nullptr, 0), "a finished search reads nothing");
}

}  // namespace

void* operator new(size_t size) {
  ++allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

int main() {
  std::mt19937 random(20);
  for (int i = 0; i < 1500; ++i) Run(random);

  edgecap::BeamConfig wrong;
  wrong.beams = edgecap::BeamSearch::kMaxBeams + 1;
  bool refused = false;
  try {
    edgecap::BeamSearch(wrong, {nullptr, nullptr, nullptr});
  } catch (const std::invalid_argument&) {
    refused = true;
  }
  Check(refused, "too many beams are refused");
  std::puts("sound");
}
