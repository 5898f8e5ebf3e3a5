#include "step_spec.h"

#include <nanobind/stl/string.h>

#include <stdexcept>
#include <vector>

namespace nb = nanobind;

namespace edgecap {
namespace {

StepFloats Array(nb::handle object, size_t sides) {
  StepFloats array = nb::cast<StepFloats>(object);
  if (array.ndim() != sides) throw std::invalid_argument("an array has other sides");
  return array;
}

std::vector<float> Copy(const StepFloats& array) {
  return {array.data(), array.data() + array.size()};
}

StepNorm GetNorm(nb::handle object) {
  if (object.is_none()) return {};
  const nb::tuple parts = nb::cast<nb::tuple>(object);  // (weight [d], bias [d], eps)
  return {Copy(Array(parts[0], 1)), Copy(Array(parts[1], 1)), nb::cast<float>(parts[2])};
}

int Whole(const nb::dict& spec, const char* name) { return nb::cast<int>(spec[name]); }

}  // namespace

Matrix GetMatrix(nb::handle object, Precision precision, const WholeKernel& kernel) {
  if (object.is_none()) return {};
  const nb::tuple parts = nb::cast<nb::tuple>(object);  // (weight [out, in], bias [out] or None)
  const StepFloats weight = Array(parts[0], 2);
  const float* bias = nullptr;
  StepFloats given;
  if (!parts[1].is_none()) {
    given = Array(parts[1], 1);
    if (given.size() != weight.shape(0)) throw std::invalid_argument("a bias has another length");
    bias = given.data();
  }
  return Pack(weight.data(), bias, static_cast<int>(weight.shape(0)),
              static_cast<int>(weight.shape(1)), precision, kernel);
}

Activation GetActivation(nb::handle object) {
  const std::string name = nb::cast<std::string>(object);
  if (name == "none") return Activation::kNone;
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "tanh") return Activation::kTanh;
  throw std::invalid_argument("no activation " + name);
}

Precision GetPrecision(const std::string& name) {
  if (name == "fp32") return Precision::kFloat;
  if (name == "bf16") return Precision::kBfloat16;
  if (name == "int8") return Precision::kInt8;
  throw std::invalid_argument("no precision " + name);
}

StepModel ReadTransformer(const nb::dict& spec, SpecPrecision precision,
                          const WholeKernel& kernel) {
  const auto matrix = [&](nb::handle from) { return GetMatrix(from, precision.all, kernel); };
  StepModel model;
  model.width = Whole(spec, "width");
  model.heads = Whole(spec, "heads");
  model.vocab = Whole(spec, "vocab");
  model.positions = Whole(spec, "positions");
  model.offset = Whole(spec, "offset");
  model.memory = Whole(spec, "memory");
  model.before = nb::cast<bool>(spec["before"]);
  model.words = Copy(Array(spec["words"], 2));
  model.places = Copy(Array(spec["places"], 2));
  model.norm_words = GetNorm(spec["norm_words"]);
  model.norm = GetNorm(spec["norm"]);
  if (!spec["transform"].is_none()) {
    model.transform = matrix(spec["transform"]);
    model.transform_activation = GetActivation(spec["transform_activation"]);
    model.transform_norm = GetNorm(spec["transform_norm"]);
  }
  model.head = GetMatrix(spec["head"], precision.head, kernel);
  for (nb::handle item : nb::cast<nb::list>(spec["layers"])) {
    const nb::dict from = nb::cast<nb::dict>(item);
    StepLayer& layer = model.layers.emplace_back();
    layer.qkv = matrix(from["qkv"]);
    layer.out = matrix(from["out"]);
    layer.up = matrix(from["up"]);
    layer.down = matrix(from["down"]);
    layer.norm = GetNorm(from["norm"]);
    layer.feed_norm = GetNorm(from["feed_norm"]);
    layer.activation = GetActivation(from["activation"]);
    layer.scale = nb::cast<float>(from["scale"]);
    if (from["cross_query"].is_none()) continue;
    layer.cross_query = matrix(from["cross_query"]);
    layer.cross_out = matrix(from["cross_out"]);
    layer.cross_norm = GetNorm(from["cross_norm"]);
    layer.cross_scale = nb::cast<float>(from["cross_scale"]);
  }
  model.Check();
  return model;
}

RecurrentModel ReadRecurrent(const nb::dict& spec, SpecPrecision precision,
                             const WholeKernel& kernel) {
  const auto matrix = [&](const char* name) {
    return GetMatrix(spec[name], precision.all, kernel);
  };
  RecurrentModel model;
  model.lstm = nb::cast<bool>(spec["lstm"]);
  model.vocab = Whole(spec, "vocab");
  model.positions = Whole(spec, "positions");
  model.width = Whole(spec, "width");
  model.hidden = Whole(spec, "hidden");
  model.words = Copy(Array(spec["words"], 2));
  model.inputs = matrix("inputs");
  model.recurrent = matrix("recurrent");
  model.head = GetMatrix(spec["head"], precision.head, kernel);
  model.places = Whole(spec, "places");
  if (model.places > 0) {
    model.score = Copy(Array(spec["score"], 1));
    model.scores = static_cast<int>(model.score.size());
    model.query = matrix("query");
    model.from_context = matrix("from_context");
    model.annotation = model.from_context.inputs;
    model.read_state = matrix("read_state");
    model.read_context = matrix("read_context");
  }
  model.Check();
  return model;
}

size_t BytesOf(const StepModel& model) {
  size_t total = (model.words.size() + model.places.size()) * sizeof(float);
  total += model.head.weights.bytes() + model.transform.weights.bytes();
  for (const StepLayer& layer : model.layers) {
    for (const Matrix* m :
         {&layer.qkv, &layer.out, &layer.up, &layer.down, &layer.cross_query, &layer.cross_out}) {
      total += m->weights.bytes();
    }
  }
  return total;
}

size_t BytesOf(const RecurrentModel& model) {
  size_t total = (model.words.size() + model.score.size()) * sizeof(float);
  for (const Matrix* m : {&model.inputs, &model.recurrent, &model.head, &model.query,
                          &model.from_context, &model.read_state, &model.read_context}) {
    total += m->weights.bytes();
  }
  return total;
}

}  // namespace edgecap
