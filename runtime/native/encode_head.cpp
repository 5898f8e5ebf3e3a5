#include "encode_head.h"

#include <algorithm>
#include <stdexcept>

#include "step_rows.h"

namespace edgecap {
namespace {

// Keys and values of one head, packed as a product's weights are, and scores of a few rows.
struct HeadScratch {
  Aligned keys;
  Aligned values;
  Aligned scores;
};

float* Fit(Aligned* memory, size_t count) {
  if (memory->bytes() < count * sizeof(float)) *memory = Aligned(count * sizeof(float));
  return memory->as<float>();
}

// out [rows, count], `stride` apart, = x times packed weights of `depth` inputs.
void Multiply(const float* weights, int depth, int outputs, const float* x, int x_stride, int rows,
              float* out, int stride) {
  alignas(64) float tile[kTileRows * kTileOutputs];
  for (int block = 0; block < Blocks(outputs); block += kTileBlocks) {
    const int blocks = std::min(kTileBlocks, Blocks(outputs) - block);
    const int count = std::min(kTileOutputs, outputs - block * kLanes);
    FloatTile(weights + static_cast<size_t>(block) * depth * kLanes, depth, depth, blocks, x,
              x_stride, rows, tile);
    for (int r = 0; r < rows; ++r) {
      std::copy(tile + r * kTileOutputs, tile + r * kTileOutputs + count,
                out + static_cast<size_t>(r) * stride + block * kLanes);
    }
  }
}

}  // namespace

HeadRun::HeadRun(const EncoderModel& model, StepPool& pool, const WholeKernel& kernel)
    : model_(model), pool_(pool) {
  std::map<int, int> widest;  // by rows
  for (size_t i = 0; i < model_.steps.size(); ++i) {
    Check(static_cast<int>(i));
    const HeadStep& step = model_.steps[i];
    matrices_.emplace_back(sizeof(float) * step.values());
    if (step.kind != HeadStep::kProduct) continue;
    widest[step.rows] = std::max(widest[step.rows], step.matrix.inputs);
  }
  for (const auto& [rows, inputs] : widest) {
    products_.emplace(std::piecewise_construct, std::forward_as_tuple(rows),
                      std::forward_as_tuple(pool, kernel, rows, inputs));
  }
  for (const HeadResult& result : model_.results) {
    if (result.step < 0) continue;
    if (result.step >= static_cast<int>(model_.steps.size())) {
      throw std::invalid_argument("a result is no step's");
    }
    const size_t values = model_.steps[result.step].values();
    for (int32_t value : result.index) {
      if (value < 0 || static_cast<size_t>(value) >= values) {
        throw std::invalid_argument("a result reads beyond its matrix");
      }
    }
  }
}

void HeadRun::Check(int at) const {
  const HeadStep& step = model_.steps[at];
  const auto require = [](bool holds) {
    if (!holds) throw std::invalid_argument("steps of an encoder's head do not fit together");
  };
  require(step.rows > 0 && step.width > 0 && !step.from.empty());
  size_t source = 0;
  if (step.kind == HeadStep::kMap) {
    const int map = step.from[0];
    require(map >= -1 && map < static_cast<int>(model_.convolutions.size()));
    require(map >= 0 || model_.box > 0);
    source = map >= 0 ? model_.convolutions[map].out.values()
                      : model_.picture.values() / model_.box / model_.box;
  } else {
    for (int from : step.from) require(from >= 0 && from < at);
    source = model_.steps[step.from[0]].values();
  }
  for (int32_t value : step.index) require(value >= 0 && static_cast<size_t>(value) < source);
  const HeadStep* first = step.kind == HeadStep::kMap ? nullptr : &model_.steps[step.from[0]];
  switch (step.kind) {
    case HeadStep::kMap:
    case HeadStep::kGather:
      require(step.index.empty() ? source == step.values() : step.index.size() == step.values());
      break;
    case HeadStep::kMean:
      require(step.rows == 1 && first->width == step.width);
      break;
    case HeadStep::kProduct:
      require(first->rows == step.rows && first->width == step.matrix.inputs &&
              step.matrix.outputs == step.width);
      require(step.from.size() < 2 || (step.activation == Activation::kNone &&
                                       model_.steps[step.from[1]].values() == step.values()));
      break;
    case HeadStep::kConcat: {
      int rows = 0;
      for (int from : step.from) {
        require(model_.steps[from].width == step.width);
        rows += model_.steps[from].rows;
      }
      require(rows == step.rows);
      break;
    }
    case HeadStep::kNorm:
      require(first->values() == step.values() && first->width == step.width &&
              step.weight.size() == static_cast<size_t>(step.width) &&
              step.bias.size() == static_cast<size_t>(step.width));
      break;
    case HeadStep::kTable:
      require(first->values() == step.values() && step.weight.size() == step.values());
      break;
    case HeadStep::kAttention:
      require(step.heads > 0 && step.width % step.heads == 0 && first->rows == step.rows &&
              first->width == 3 * step.width);
      break;
  }
}

// Threads share what is long.
void HeadRun::Gather(const std::vector<int32_t>& index, const float* from, float* to,
                     size_t count) {
  constexpr size_t kPart = 1 << 14;
  pool_.Run(static_cast<int>((count + kPart - 1) / kPart), [&](int part) {
    const size_t end = std::min(count, (part + 1) * kPart);
    size_t i = part * kPart;
    if (index.empty()) {
      std::copy(from + i, from + end, to + i);
    } else {
      for (; i < end; ++i) to[i] = from[index[i]];
    }
  });
}

void HeadRun::GiveOut(const HeadResult& result, float* out) {
  const size_t values = model_.steps[result.step].values();
  Gather(result.index, matrix(result.step), out,
         result.index.empty() ? values : result.index.size());
}

void HeadRun::Step(int at) {
  const HeadStep& step = model_.steps[at];
  const HeadStep& first = model_.steps[step.from[0]];
  const float* x = matrix(step.from[0]);
  float* out = matrix(at);
  const int width = step.width;
  switch (step.kind) {
    case HeadStep::kMap:
      return;
    case HeadStep::kGather:
      return Gather(step.index, x, out, step.values());
    case HeadStep::kMean:
      std::fill(out, out + width, 0.0f);
      for (int row = 0; row < first.rows; ++row) {
        AddScaled(x + static_cast<size_t>(row) * width, 1.0f, width, out);
      }
      for (int i = 0; i < width; ++i) out[i] /= static_cast<float>(first.rows);
      return;
    case HeadStep::kProduct: {
      Finish finish;
      finish.activation = step.activation;
      if (step.from.size() > 1) {
        const float* added = matrix(step.from[1]);
        std::copy(added, added + step.values(), out);
        finish.add = true;
      }
      products_.at(step.rows).Run(step.matrix, x, out, width, finish);
      return;
    }
    case HeadStep::kConcat:
      for (int from : step.from) {
        const size_t values = model_.steps[from].values();
        std::copy(matrix(from), matrix(from) + values, out);
        out += values;
      }
      return;
    case HeadStep::kNorm:
      pool_.Run(Blocks(step.rows), [&](int block) {
        const int end = std::min(step.rows, (block + 1) * kLanes);
        for (int row = block * kLanes; row < end; ++row) {
          const size_t start = static_cast<size_t>(row) * width;
          LayerNorm(x + start, width, step.weight.data(), step.bias.data(), step.eps, out + start);
        }
      });
      return;
    case HeadStep::kTable:
      std::copy(x, x + step.values(), out);
      AddScaled(step.weight.data(), 1.0f, static_cast<int>(step.values()), out);
      return;
    case HeadStep::kAttention:
      pool_.Run(step.heads, [&](int head) { Attend(step, head, x, out); });
      return;
  }
}

// One head over all rows; a row of `all` holds its query, key and value.
void HeadRun::Attend(const HeadStep& step, int head, const float* all, float* out) {
  thread_local HeadScratch scratch;
  const int rows = step.rows;
  const int depth = step.width / step.heads;
  const int stride = 3 * step.width;
  const int blocks = Blocks(rows);
  const int width = blocks * kLanes;
  const float* query = all + static_cast<size_t>(head) * depth;
  float* keys = Fit(&scratch.keys, static_cast<size_t>(width) * depth);
  float* values = Fit(&scratch.values, static_cast<size_t>(Blocks(depth)) * kLanes * rows);
  float* scores = Fit(&scratch.scores, static_cast<size_t>(kTileRows) * width);
  for (int row = 0; row < rows; ++row) {
    const float* key = query + static_cast<size_t>(row) * stride + step.width;
    float* column = keys + static_cast<size_t>(row / kLanes) * depth * kLanes + row % kLanes;
    for (int i = 0; i < depth; ++i) column[static_cast<size_t>(i) * kLanes] = key[i];
    const float* value = key + step.width;
    for (int i = 0; i < depth; i += kLanes) {
      std::copy(value + i, value + std::min(depth, i + kLanes),
                values + (static_cast<size_t>(i / kLanes) * rows + row) * kLanes);
    }
  }
  for (int row = 0; row < rows; row += kTileRows) {
    const int here = std::min(kTileRows, rows - row);
    Multiply(keys, depth, rows, query + static_cast<size_t>(row) * stride, stride, here, scores,
             width);
    for (int r = 0; r < here; ++r) Softmax(scores + r * width, rows, step.scale);
    Multiply(values, rows, depth, scores, width, here,
             out + static_cast<size_t>(row) * step.width + head * depth, step.width);
  }
}

}  // namespace edgecap
