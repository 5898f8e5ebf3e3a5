// Steps of a small random decoder in every precision, kernel and number of threads, with odd sizes.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "step_decoder.h"

using namespace edgecap;

namespace {

uint32_t state = 1;
float Random() {
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
}

std::vector<float> Values(size_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = Random();
  return values;
}

Matrix Make(int outputs, int inputs, Precision precision, const WholeKernel& kernel) {
  const std::vector<float> bias = Values(outputs);
  return Pack(Values(static_cast<size_t>(outputs) * inputs).data(), bias.data(), outputs, inputs,
              precision, kernel);
}

StepModel Model(Precision precision, const WholeKernel& kernel, bool crosses, bool before) {
  constexpr int kWidth = 18;
  constexpr int kHidden = 70;
  StepModel m;
  m.width = kWidth;
  m.heads = 3;
  m.vocab = 37;
  m.positions = 5;
  m.offset = 2;
  m.memory = 19;
  m.before = before;
  m.words = Values(37 * kWidth);
  m.places = Values(7 * kWidth);
  const StepNorm norm{Values(kWidth), Values(kWidth), 1e-5f};
  if (before) m.norm = norm;
  m.head = Make(37, kWidth, precision, kernel);
  const Activation kinds[] = {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh};
  for (const Activation kind : kinds) {
    StepLayer& layer = m.layers.emplace_back();
    layer.qkv = Make(3 * kWidth, kWidth, precision, kernel);
    layer.out = Make(kWidth, kWidth, precision, kernel);
    layer.up = Make(kHidden, kWidth, precision, kernel);
    layer.down = Make(kWidth, kHidden, precision, kernel);
    layer.norm = layer.feed_norm = norm;
    layer.activation = kind;
    layer.scale = 0.4f;
    if (!crosses) continue;
    layer.cross_query = Make(kWidth, kWidth, precision, kernel);
    layer.cross_out = Make(kWidth, kWidth, precision, kernel);
    layer.cross_norm = norm;
    layer.cross_scale = 0.4f;
  }
  m.Check();
  return m;
}

bool Decode(const StepModel& model, const WholeKernel& kernel, int batch, int beams, int threads) {
  StepPool pool(threads);
  StepRun run(model, pool, kernel, batch, beams);
  const size_t size = static_cast<size_t>(batch) * model.memory * model.width;
  for (int layer = 0; layer < 3; ++layer) {
    run.SetMemory(layer, Values(size).data(), Values(size).data(), layer % 2 == 0);
  }
  const int rows = batch * beams;
  std::vector<int64_t> tokens(rows);
  std::vector<int64_t> parents(rows);
  std::vector<uint8_t> ancestry(static_cast<size_t>(rows) * beams * model.positions);
  BeamConfig config;
  config.batch = batch;
  config.beams = beams;
  config.vocab = model.vocab;
  config.positions = model.positions;
  config.max_new_tokens = model.positions;
  BeamSearch search(config, {tokens.data(), parents.data(), ancestry.data()});
  double seconds = 0.0;
  while (!run.Advance(&search, tokens.data(), ancestry.data(), 2, &seconds)) {
  }
  int64_t found[8];
  float logprobs[8];
  float score = 0.0f;
  return search.Hypothesis(batch - 1, 0, found, logprobs, &score) > 0 && std::isfinite(score);
}

}  // namespace

int main() {
  for (const WholeKernel& kernel : WholeKernels()) {
    for (int precision = 0; precision < 4; ++precision) {
      for (int kind = 0; kind < 4; ++kind) {
        const StepModel model =
            Model(static_cast<Precision>(precision), kernel, kind & 1, (kind & 2) == 0);
        for (int beams : {1, 3, 6}) {
          if (!Decode(model, kernel, beams == 3 ? 3 : 1, beams, kind + 1)) {
            std::fprintf(stderr, "no caption by %s\n", kernel.name);
            return 1;
          }
        }
      }
    }
  }
  std::puts("sound");
  return 0;
}
