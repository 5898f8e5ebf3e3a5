// Drives the emulated CUDA beam search beside the C++ core, with random options and hostile logits,
// under AddressSanitizer and UndefinedBehaviorSanitizer. The sums of exponentials, in doubles and
// in pairs of floats, are compared with long doubles.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "beam.h"
#include "beam_cuda.cu"  // NOLINT: the kernels, for this compiler

namespace {

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
  if (kind == 3) return static_cast<float>(static_cast<int>(random() % 4)) - 2.0f;
  return random() % 2 ? plain(random) : odd[random() % 8];
}

struct Free {
  void operator()(void* memory) const { cudaFree(memory); }
};

// Device memory of exactly so many bytes, so that the sanitizer sees one too many.
std::unique_ptr<unsigned char, Free> Memory(size_t bytes) {
  unsigned char* memory = nullptr;
  Check(cudaMalloc(&memory, bytes) == cudaSuccess, "memory");
  return std::unique_ptr<unsigned char, Free>(memory);
}

void Run(std::mt19937& random) {
  edgecap::BeamConfig c;
  c.batch = 1 + random() % 3;
  c.beams = 1 + random() % edgecap::BeamSearch::kMaxBeams;
  c.vocab = 2 + random() % 150;
  c.positions = 1 + random() % 9;
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
  std::vector<int32_t> suppress;
  for (unsigned i = random() % 3; i > 0; --i) suppress.push_back(random() % (c.vocab + 5));
  c.suppress_tokens.assign(suppress.begin(), suppress.end());

  edgecap_beam_config d{};
  d.batch = c.batch;
  d.beams = c.beams;
  d.vocab = c.vocab;
  d.positions = c.positions;
  d.max_new_tokens = c.max_new_tokens;
  d.min_new_tokens = c.min_new_tokens;
  d.no_repeat_ngram_size = c.no_repeat_ngram_size;
  d.early_stopping = static_cast<int>(c.early_stopping);
  d.bos = static_cast<int>(c.bos);
  d.eos = static_cast<int>(c.eos);
  d.pad = static_cast<int>(c.pad);
  d.ancestry = random() % 2;
  d.parts = 1 + random() % 4;
  d.repetition_penalty = c.repetition_penalty;
  d.length_penalty = c.length_penalty;
  d.suppress_tokens = suppress.data();
  d.suppress_count = static_cast<int>(suppress.size());

  const int rows = c.batch * c.beams;
  const size_t width = static_cast<size_t>(c.beams) * c.positions;
  std::vector<int64_t> tokens(rows), parents(rows);
  std::vector<uint8_t> ancestry(rows * width);
  edgecap::BeamSearch host(c, {tokens.data(), parents.data(), ancestry.data()});

  edgecap_beam_places places;
  Check(edgecap_beam_layout(&d, &places) == EDGECAP_OK, "a layout");
  const auto state = Memory(places.state_bytes);
  Check(edgecap_beam_init(&d, state.get(), places.state_bytes, nullptr) == EDGECAP_OK, "a start");

  const size_t stride = c.vocab + random() % 3, ahead = random() % 3;
  const size_t size = ahead + (rows - 1) * stride + c.vocab;
  const int kind = random() % 5;
  for (bool done = false; !done;) {
    std::unique_ptr<float[]> logits(new float[size]);
    for (size_t i = 0; i < size; ++i) logits[i] = Value(kind, random);
    done = host.Step(logits.get() + ahead, static_cast<std::ptrdiff_t>(stride));
    Check(edgecap_beam_step(&d, state.get(), logits.get() + ahead, EDGECAP_FLOAT32,
                            static_cast<int64_t>(stride), nullptr) == EDGECAP_OK,
          "a step");
    int32_t poll[2];
    Check(edgecap_beam_poll(&d, state.get(), poll, nullptr) == EDGECAP_OK, "a poll");
    Check(poll[0] == host.position() && (poll[1] == 0) == done, "both are done at once");
    const auto* ours = reinterpret_cast<const int32_t*>(state.get() + places.tokens);
    const auto* from = reinterpret_cast<const int32_t*>(state.get() + places.parents);
    for (int row = 0; row < rows; ++row) {
      Check(ours[row] == tokens[row] && from[row] == parents[row], "tokens and parents agree");
    }
    if (d.ancestry) {
      Check(std::equal(ancestry.begin(), ancestry.end(), state.get() + places.ancestry),
            "ancestry agrees");
    }
    std::unique_ptr<unsigned char[]> found(new unsigned char[rows * places.result_bytes]);
    Check(edgecap_beam_results(&d, state.get(), c.beams, found.get(), nullptr) == EDGECAP_OK,
          "results");
    for (int row = 0; row < rows; ++row) {
      std::vector<int64_t> ids(c.max_new_tokens);
      std::vector<float> logprobs(c.max_new_tokens);
      float score = 0.0f;
      const int length =
          host.Hypothesis(row / c.beams, row % c.beams, ids.data(), logprobs.data(), &score);
      const unsigned char* result = found.get() + row * places.result_bytes;
      const auto* head = reinterpret_cast<const edgecap::gpu::ResultHead*>(result);
      const auto* words = reinterpret_cast<const int32_t*>(head + 1);
      Check(head->length == length, "lengths agree");
      Check(head->score == score || std::fabs(head->score - score) <= 1e-5f * std::fabs(score),
            "scores agree");
      for (int i = 0; i < length; ++i) Check(words[i] == ids[i], "words agree");
    }
  }
}

template <bool kDoubles>
void SumsAreExact(double bound, std::mt19937& random) {
  using edgecap::gpu::LaneSoft;
  for (int round = 0; round < 400; ++round) {
    const int count = 1 + random() % 2000;
    const float spread = std::exp2(static_cast<float>(static_cast<int>(random() % 12)) - 6.0f);
    std::normal_distribution<float> normal(random() % 2 ? 0.0f : 30.0f, spread);
    std::vector<float> values(count);
    float max = -std::numeric_limits<float>::infinity();
    LaneSoft<kDoubles> soft;
    for (float& x : values) {
      x = normal(random);
      max = std::fmax(max, x);
      soft.RaiseMax(x);
      soft.Add(x);
    }
    long double exact = 0.0L;
    for (const float x : values) exact += std::exp(static_cast<long double>(x) - max);
    Check(soft.max == max, "the maximum");
    const long double error = std::fabs(soft.sum.Total() / exact - 1.0L);
    if (error > bound) std::fprintf(stderr, "%d of %g: %Lg\n", count, spread, error);
    Check(error <= bound, "the sum of exponentials");
  }
}

}  // namespace

int main() {
  std::mt19937 random(11);
  SumsAreExact<true>(1e-12, random);
  SumsAreExact<false>(1e-10, random);
  for (int round = 0; round < 60; ++round) Run(random);
  std::puts("sound");
  return 0;
}
