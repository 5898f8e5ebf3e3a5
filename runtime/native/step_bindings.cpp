#include "step_bindings.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "step_spec.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace edgecap {
namespace {

using Rows = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Wholes = nb::ndarray<int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstIds = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ConstMask = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using OptionalFloats = std::optional<StepFloats>;

// The model and the threads that run it.
struct StepDecoder {
  StepDecoder(const nb::dict& spec, const std::string& precision, const std::string& head_precision,
              int threads, const std::string& kernel)
      : kernel(ChooseWholeKernel(kernel)), pool(std::min(64, threads)) {
    const SpecPrecision chosen{GetPrecision(precision), GetPrecision(head_precision)};
    if (spec.contains("layers")) {
      transformer = std::make_unique<StepModel>(ReadTransformer(spec, chosen, this->kernel));
    } else {
      recurrent = std::make_unique<RecurrentModel>(ReadRecurrent(spec, chosen, this->kernel));
    }
  }

  std::unique_ptr<StepRun> Run(int batch, int beams) {
    if (transformer) {
      return std::make_unique<TransformerRun>(*transformer, pool, kernel, batch, beams);
    }
    return std::make_unique<RecurrentRun>(*recurrent, pool, kernel, batch, beams);
  }

  size_t bytes() const { return transformer ? BytesOf(*transformer) : BytesOf(*recurrent); }

  const WholeKernel& kernel;
  StepPool pool;
  std::unique_ptr<StepModel> transformer;  // one of the two
  std::unique_ptr<RecurrentModel> recurrent;
};

// A run that keeps its decoder; Python calls one at a time.
struct BoundRun {
  BoundRun(StepDecoder& decoder, int batch, int beams)
      : decoder(decoder), run(decoder.Run(batch, beams)) {}

  TransformerRun& transformer() {
    if (!decoder.transformer) throw std::invalid_argument("the decoder is no Transformer");
    return static_cast<TransformerRun&>(*run);
  }
  RecurrentRun& recurrent() {
    if (!decoder.recurrent) throw std::invalid_argument("the decoder has no recurrent state");
    return static_cast<RecurrentRun&>(*run);
  }
  size_t batch() const { return run->batch(); }

  StepDecoder& decoder;
  std::unique_ptr<StepRun> run;
};

void CheckSize(const StepFloats& array, size_t size, const char* message) {
  if (array.size() != size) throw std::invalid_argument(message);
}

void SetMemory(BoundRun& self, int layer, const StepFloats& keys, const StepFloats& values,
               bool as_rows) {
  TransformerRun& run = self.transformer();
  const StepModel& model = *self.decoder.transformer;
  const size_t size = self.batch() * model.memory * model.width;
  CheckSize(keys, size, "memory does not have the model's size");
  CheckSize(values, size, "memory does not have the model's size");
  run.SetMemory(layer, keys.data(), values.data(), as_rows);
}

void SetFirst(BoundRun& self, const StepFloats& first) {
  TransformerRun& run = self.transformer();
  CheckSize(first, self.batch() * self.decoder.transformer->width, "first is not [B, d]");
  run.SetFirst(first.data());
}

void SetState(BoundRun& self, const StepFloats& hidden, const OptionalFloats& cell) {
  RecurrentRun& run = self.recurrent();
  const size_t size = self.batch() * self.decoder.recurrent->hidden;
  CheckSize(hidden, size, "the state is not [B, H]");
  if (cell) CheckSize(*cell, size, "the cell is not [B, H]");
  run.SetState(hidden.data(), cell ? cell->data() : nullptr);
}

void SetAnnotations(BoundRun& self, const StepFloats& annotations, const StepFloats& scores) {
  RecurrentRun& run = self.recurrent();
  const RecurrentModel& model = *self.decoder.recurrent;
  const size_t places = self.batch() * model.places;
  CheckSize(annotations, places * model.annotation, "annotations are not [B, N, D]");
  CheckSize(scores, places * model.scores, "scores are not [B, N, A]");
  run.SetAnnotations(annotations.data(), scores.data());
}

template <typename Ids, typename Mask>
void CheckRows(const StepRun& run, const Ids& tokens, const Ids& parents, const Mask& ancestry) {
  const size_t rows = run.rows();
  const size_t slots = static_cast<size_t>(run.beams()) * run.positions();
  if (tokens.size() != rows || parents.size() != rows || ancestry.shape(0) != rows ||
      ancestry.shape(1) != slots) {
    throw std::invalid_argument("tokens, parents or ancestry do not have B * K rows");
  }
}

void Step(BoundRun& self, const ConstIds& tokens, const ConstIds& parents, int position,
          const ConstMask& ancestry, const Rows& logits) {
  StepRun& run = *self.run;
  CheckRows(run, tokens, parents, ancestry);
  const size_t vocab = run.vocab();
  if (logits.shape(0) != tokens.size() || logits.shape(1) != vocab) {
    throw std::invalid_argument("logits are not [R, V]");
  }
  const nb::gil_scoped_release release;
  const StepPool::Awake awake(self.decoder.pool);
  const float* from = run.Step(tokens.data(), parents.data(), position,
                               reinterpret_cast<const uint8_t*>(ancestry.data()));
  for (size_t row = 0; row < logits.shape(0); ++row, from += run.logits_stride()) {
    std::copy(from, from + vocab, logits.data() + row * vocab);
  }
}

// (done, seconds in steps). search : the capsule of a BeamSearch, whose buffers the arrays are.
nb::tuple Advance(BoundRun& self, const nb::capsule& search, const Ids& tokens, const Ids& parents,
                  const Mask& ancestry, int limit) {
  if (std::string(search.name()) != "edgecap.BeamSearch") {
    throw std::invalid_argument("this is no beam search");
  }
  StepRun& run = *self.run;
  BeamSearch* beams = static_cast<BeamSearch*>(search.data());
  const BeamConfig& config = beams->config();
  CheckRows(run, tokens, parents, ancestry);
  if (config.batch != run.batch() || config.beams != run.beams() || config.vocab != run.vocab() ||
      config.positions != run.positions()) {
    throw std::invalid_argument("the search has another size than the run");
  }
  const BeamBuffers buffers{tokens.data(), parents.data(),
                            reinterpret_cast<uint8_t*>(ancestry.data())};
  double seconds = 0.0;
  bool done = false;
  {
    const nb::gil_scoped_release release;
    done = run.Advance(beams, buffers, limit, &seconds);
  }
  return nb::make_tuple(done, seconds);
}

// For tests: rows times a matrix in whole numbers, by one kernel.
void WholeProduct(const StepFloats& weight, const StepFloats& x, const Wholes& result,
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
      .def("set_memory", &SetMemory, "layer"_a, "keys"_a.noconvert(), "values"_a.noconvert(),
           "as_rows"_a)
      .def("set_first", &SetFirst, "first"_a.noconvert())
      .def("set_state", &SetState, "hidden"_a.noconvert(), "cell"_a.none() = nb::none())
      .def("set_annotations", &SetAnnotations, "annotations"_a.noconvert(), "scores"_a.noconvert())
      .def("step", &Step, "tokens"_a.noconvert(), "parents"_a.noconvert(), "position"_a,
           "ancestry"_a.noconvert(), "logits"_a.noconvert())
      .def("advance", &Advance, "search"_a, "tokens"_a.noconvert(), "parents"_a.noconvert(),
           "ancestry"_a.noconvert(), "limit"_a);
}

}  // namespace edgecap
