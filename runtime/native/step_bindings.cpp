#include "step_bindings.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "step_decoder.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace edgecap {
namespace {

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Wholes = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstIds = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstMask = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

Floats Array(nb::handle object, size_t sides) {
  Floats array = nb::cast<Floats>(object);
  if (array.ndim() != sides) throw std::invalid_argument("an array has other sides");
  return array;
}

std::vector<float> Copy(const Floats& array) { return {array.data(), array.data() + array.size()}; }

Matrix GetMatrix(nb::handle object, Precision precision, const WholeKernel& kernel) {
  if (object.is_none()) return {};
  const nb::tuple parts = nb::cast<nb::tuple>(object);  // (weight [out, in], bias [out] or None)
  const Floats weight = Array(parts[0], 2);
  const float* bias = nullptr;
  Floats given;
  if (!parts[1].is_none()) {
    given = Array(parts[1], 1);
    if (given.size() != weight.shape(0)) throw std::invalid_argument("a bias has another length");
    bias = given.data();
  }
  return Pack(weight.data(), bias, static_cast<int>(weight.shape(0)),
              static_cast<int>(weight.shape(1)), precision, kernel);
}

StepNorm GetNorm(nb::handle object) {
  if (object.is_none()) return {};
  const nb::tuple parts = nb::cast<nb::tuple>(object);  // (weight [d], bias [d], eps)
  return {Copy(Array(parts[0], 1)), Copy(Array(parts[1], 1)), nb::cast<float>(parts[2])};
}

Activation GetActivation(nb::handle object) {
  const std::string name = nb::cast<std::string>(object);
  if (name == "relu") return Activation::kRelu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "tanh") return Activation::kTanh;
  throw std::invalid_argument("no activation " + name);
}

Precision GetPrecision(const std::string& name) {
  if (name == "fp32") return Precision::kFloat;
  if (name == "bf16") return Precision::kBfloat16;
  if (name == "int8-weights") return Precision::kInt8Weights;
  if (name == "int8") return Precision::kInt8;
  throw std::invalid_argument("no precision " + name);
}

// The model and the threads that run it.
struct StepDecoder {
  StepDecoder(const nb::dict& spec, const std::string& precision, const std::string& head_precision,
              int threads, const std::string& kernel)
      : kernel(ChooseWholeKernel(kernel)), pool(std::min(64, threads)) {
    const Precision chosen = GetPrecision(precision);
    const Precision of_head = GetPrecision(head_precision);
    const auto whole = [&](const char* name) { return nb::cast<int>(spec[name]); };
    model.width = whole("width");
    model.heads = whole("heads");
    model.vocab = whole("vocab");
    model.positions = whole("positions");
    model.offset = whole("offset");
    model.memory = whole("memory");
    model.before = nb::cast<bool>(spec["before"]);
    model.words = Copy(Array(spec["words"], 2));
    model.places = Copy(Array(spec["places"], 2));
    model.norm_words = GetNorm(spec["norm_words"]);
    model.norm = GetNorm(spec["norm"]);
    if (!spec["transform"].is_none()) {
      model.transform = GetMatrix(spec["transform"], chosen, this->kernel);
      model.transform_activation = GetActivation(spec["transform_activation"]);
      model.transform_norm = GetNorm(spec["transform_norm"]);
    }
    model.head = GetMatrix(spec["head"], of_head, this->kernel);
    for (nb::handle item : nb::cast<nb::list>(spec["layers"])) {
      const nb::dict from = nb::cast<nb::dict>(item);
      StepLayer& layer = model.layers.emplace_back();
      layer.qkv = GetMatrix(from["qkv"], chosen, this->kernel);
      layer.out = GetMatrix(from["out"], chosen, this->kernel);
      layer.up = GetMatrix(from["up"], chosen, this->kernel);
      layer.down = GetMatrix(from["down"], chosen, this->kernel);
      layer.norm = GetNorm(from["norm"]);
      layer.feed_norm = GetNorm(from["feed_norm"]);
      layer.activation = GetActivation(from["activation"]);
      layer.scale = nb::cast<float>(from["scale"]);
      if (from["cross_query"].is_none()) continue;
      layer.cross_query = GetMatrix(from["cross_query"], chosen, this->kernel);
      layer.cross_out = GetMatrix(from["cross_out"], chosen, this->kernel);
      layer.cross_norm = GetNorm(from["cross_norm"]);
      layer.cross_scale = nb::cast<float>(from["cross_scale"]);
    }
    model.Check();
  }

  size_t bytes() const {
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

  const WholeKernel& kernel;
  StepPool pool;
  StepModel model;
};

void CheckRows(const StepRun& run, const StepModel& model, const ConstIds& tokens,
               const ConstMask& ancestry) {
  const size_t rows = run.rows();
  const size_t slots = static_cast<size_t>(run.beams()) * model.positions;
  if (tokens.size() != rows || ancestry.shape(0) != rows || ancestry.shape(1) != slots) {
    throw std::invalid_argument("tokens or ancestry do not have B * K rows of K * T slots");
  }
}

void CheckMemory(const StepRun& run, const StepModel& model, const Floats& keys,
                 const Floats& values) {
  const size_t size = static_cast<size_t>(run.batch()) * model.memory * model.width;
  if (keys.size() != size || values.size() != size || keys.shape(0) != values.shape(0)) {
    throw std::invalid_argument("memory does not have the model's size");
  }
}

// A run that keeps its decoder; Python calls one at a time.
struct BoundRun {
  BoundRun(StepDecoder& decoder, int batch, int beams)
      : decoder(decoder), run(decoder.model, decoder.pool, decoder.kernel, batch, beams) {}
  StepDecoder& decoder;
  StepRun run;
};

void Step(BoundRun& self, const ConstIds& tokens, int position, const ConstMask& ancestry,
          const Rows& logits) {
  const StepModel& model = self.decoder.model;
  CheckRows(self.run, model, tokens, ancestry);
  const size_t vocab = model.vocab;
  if (logits.shape(0) != tokens.size() || logits.shape(1) != vocab) {
    throw std::invalid_argument("logits are not [R, V]");
  }
  const nb::gil_scoped_release release;
  self.decoder.pool.Begin();
  const float* from = nullptr;
  try {
    from =
        self.run.Step(tokens.data(), position, reinterpret_cast<const uint8_t*>(ancestry.data()));
  } catch (...) {
    self.decoder.pool.End();
    throw;
  }
  self.decoder.pool.End();
  for (size_t row = 0; row < logits.shape(0); ++row) {
    std::copy(from + row * self.run.logits_stride(), from + row * self.run.logits_stride() + vocab,
              logits.data() + row * vocab);
  }
}

// (done, seconds in steps). search : the capsule of a BeamSearch, whose buffers tokens and ancestry
// are.
nb::tuple Advance(BoundRun& self, const nb::capsule& search, const ConstIds& tokens,
                  const ConstMask& ancestry, int limit) {
  if (std::string(search.name()) != "edgecap.BeamSearch") {
    throw std::invalid_argument("this is no beam search");
  }
  BeamSearch* beams = static_cast<BeamSearch*>(search.data());
  const BeamConfig& config = beams->config();
  CheckRows(self.run, self.decoder.model, tokens, ancestry);
  if (config.batch != self.run.batch() || config.beams != self.run.beams() ||
      config.vocab != self.decoder.model.vocab ||
      config.positions != self.decoder.model.positions) {
    throw std::invalid_argument("the search has another size than the run");
  }
  double seconds = 0.0;
  bool done = false;
  {
    const nb::gil_scoped_release release;
    done = self.run.Advance(beams, tokens.data(), reinterpret_cast<const uint8_t*>(ancestry.data()),
                            limit, &seconds);
  }
  return nb::make_tuple(done, seconds);
}

// For tests: rows times a matrix in whole numbers, by one kernel.
void WholeProduct(const Floats& weight, const Floats& x, const Wholes& result,
                  const std::string& name) {
  const WholeKernel& kernel = ChooseWholeKernel(name);
  if (weight.ndim() != 2 || x.ndim() != 2 || weight.shape(1) != x.shape(1) ||
      result.shape(0) != x.shape(0) || result.shape(1) != weight.shape(0)) {
    throw std::invalid_argument("give [out, in], [rows, in] and [rows, out]");
  }
  const int outputs = static_cast<int>(weight.shape(0));
  const int inputs = static_cast<int>(weight.shape(1));
  const Matrix m = Pack(weight.data(), nullptr, outputs, inputs, Precision::kInt8, kernel);
  const int rows = static_cast<int>(x.shape(0));
  std::vector<int8_t> whole(static_cast<size_t>(rows) * m.depth);
  std::vector<int32_t> sums(rows);
  for (int r = 0; r < rows; ++r) {
    int8_t* q = whole.data() + static_cast<size_t>(r) * m.depth;
    sums[r] = Quantise(x.data() + static_cast<size_t>(r) * inputs, inputs, m.depth, q).sum;
  }
  for (int row = 0; row < rows; row += kTileRows) {
    for (int block = 0; block < m.blocks(); block += kTileBlocks) {
      int32_t tile[kTileRows * kTileOutputs];
      const int here = std::min(kTileRows, rows - row);
      const int first = block * kLanes;
      kernel.product(m.weights.as<uint8_t>() + static_cast<size_t>(first) * m.depth, m.depth / 4,
                     std::min(kTileBlocks, m.blocks() - block),
                     whole.data() + static_cast<size_t>(row) * m.depth, m.depth, sums.data() + row,
                     here, tile);
      for (int r = 0; r < here; ++r) {
        std::copy(tile + r * kTileOutputs,
                  tile + r * kTileOutputs + std::min(kTileOutputs, outputs - first),
                  result.data() + static_cast<size_t>(row + r) * outputs + first);
      }
    }
  }
}

}  // namespace

void BindStep(nb::module_& m) {
  m.def("step_kernels", [] {
    std::vector<std::string> names;
    for (const WholeKernel& kernel : WholeKernels()) names.emplace_back(kernel.name);
    return names;
  });
  m.def("whole_product", &WholeProduct, "weight"_a.noconvert(), "x"_a.noconvert(),
        "result"_a.noconvert(), "kernel"_a);
  nb::class_<StepDecoder>(m, "StepDecoder")
      .def(nb::init<const nb::dict&, const std::string&, const std::string&, int,
                    const std::string&>(),
           "spec"_a, nb::kw_only(), "precision"_a, "head_precision"_a, "threads"_a, "kernel"_a)
      .def_prop_ro("kernel", [](const StepDecoder& self) { return self.kernel.name; })
      .def_prop_ro("threads", [](const StepDecoder& self) { return self.pool.threads(); })
      .def_prop_ro("bytes", &StepDecoder::bytes);
  nb::class_<BoundRun>(m, "StepRun")
      .def(nb::init<StepDecoder&, int, int>(), "decoder"_a, "batch"_a, "beams"_a,
           nb::keep_alive<1, 2>())
      .def(
          "set_memory",
          [](BoundRun& self, int layer, const Floats& keys, const Floats& values, bool as_rows) {
            CheckMemory(self.run, self.decoder.model, keys, values);
            self.run.SetMemory(layer, keys.data(), values.data(), as_rows);
          },
          "layer"_a, "keys"_a.noconvert(), "values"_a.noconvert(), "as_rows"_a)
      .def(
          "set_first",
          [](BoundRun& self, const Floats& first) {
            const size_t size = static_cast<size_t>(self.run.batch()) * self.decoder.model.width;
            if (first.size() != size) throw std::invalid_argument("first is not [B, d]");
            self.run.SetFirst(first.data());
          },
          "first"_a.noconvert())
      .def("step", &Step, "tokens"_a.noconvert(), "position"_a, "ancestry"_a.noconvert(),
           "logits"_a.noconvert())
      .def("advance", &Advance, "search"_a, "tokens"_a.noconvert(), "ancestry"_a.noconvert(),
           "limit"_a);
}

}  // namespace edgecap
