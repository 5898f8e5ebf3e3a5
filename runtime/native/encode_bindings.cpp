#include "encode_bindings.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "encode_run.h"
#include "step_spec.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace edgecap {
namespace {

using Pixels = nb::ndarray<const uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Results = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Index = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

MapSize GetSize(nb::handle from) {
  const auto [height, width, channels] = nb::cast<std::tuple<int, int, int>>(from);
  if (std::min({height, width, channels}) < 1) throw std::invalid_argument("an empty map");
  return {height, width, channels};
}

std::vector<float> Copy(const StepFloats& array, size_t count) {
  if (array.size() != count) throw std::invalid_argument("an array has another length");
  return {array.data(), array.data() + count};
}

Convolution GetConvolution(const nb::dict& from, const std::vector<Convolution>& before,
                           const WholeKernel& kernel) {
  Convolution c;
  c.source = nb::cast<int>(from["source"]);
  c.residual = nb::cast<int>(from["residual"]);
  std::tie(c.least, c.most) = nb::cast<std::pair<float, float>>(from["bounds"]);
  std::tie(c.kernel_height, c.kernel_width) = nb::cast<std::pair<int, int>>(from["kernel"]);
  std::tie(c.stride_height, c.stride_width) = nb::cast<std::pair<int, int>>(from["stride"]);
  std::tie(c.top, c.left) = nb::cast<std::pair<int, int>>(from["before"]);
  c.in = GetSize(from["in"]);
  c.out = GetSize(from["out"]);
  std::tie(c.rounded.scale, c.rounded.zero) = nb::cast<std::pair<float, int>>(from["rounded"]);
  std::tie(c.bytes.scale, c.bytes.zero) = nb::cast<std::pair<float, int>>(from["bytes"]);
  c.Check();
  if (c.source >= static_cast<int>(before.size())) {
    throw std::invalid_argument("a map is read before it is made");
  }
  const StepFloats weight = nb::cast<StepFloats>(from["weight"]);
  const std::vector<float> bias =
      Copy(nb::cast<StepFloats>(from["bias"]), static_cast<size_t>(c.out.channels));
  const int taps = c.kernel_height * c.kernel_width;
  if (nb::cast<bool>(from["depthwise"])) {
    if (c.in.channels != c.out.channels) throw std::invalid_argument("channels do not match");
    c.taps = Copy(weight, static_cast<size_t>(taps) * c.in.channels);
    c.bias = bias;
    return c;
  }
  const int inputs = taps * c.in.channels;
  if (weight.size() != static_cast<size_t>(c.out.channels) * inputs) {
    throw std::invalid_argument("a kernel has another size");
  }
  c.Pack(weight.data(), bias.data(), c.source < 0 ? MapBytes{} : before[c.source].bytes,
         nb::cast<bool>(from["whole"]), kernel);
  return c;
}

HeadStep::Kind GetKind(const std::string& name) {
  static const std::map<std::string, HeadStep::Kind> kinds = {
      {"map", HeadStep::kMap},       {"gather", HeadStep::kGather},
      {"mean", HeadStep::kMean},     {"product", HeadStep::kProduct},
      {"concat", HeadStep::kConcat}, {"norm", HeadStep::kNorm},
      {"table", HeadStep::kTable},   {"attention", HeadStep::kAttention}};
  const auto found = kinds.find(name);
  if (found == kinds.end()) throw std::invalid_argument("no step " + name);
  return found->second;
}

std::vector<int32_t> GetIndex(nb::handle from) {
  if (from.is_none()) return {};
  const Index index = nb::cast<Index>(from);
  return {index.data(), index.data() + index.size()};
}

std::vector<float> Copy(nb::handle from) {
  const StepFloats array = nb::cast<StepFloats>(from);
  return {array.data(), array.data() + array.size()};
}

HeadStep GetStep(const nb::dict& from, const WholeKernel& kernel) {
  HeadStep step;
  step.kind = GetKind(nb::cast<std::string>(from["kind"]));
  step.rows = nb::cast<int>(from["rows"]);
  step.width = nb::cast<int>(from["width"]);
  step.from = nb::cast<std::vector<int>>(from["from"]);
  if (from.contains("index")) step.index = GetIndex(from["index"]);
  if (step.kind == HeadStep::kProduct) {
    const nb::tuple matrix = nb::make_tuple(from["weight"], from["bias"]);
    step.matrix = GetMatrix(matrix, Precision::kInt8, kernel);
    step.activation = GetActivation(from["activation"]);
  } else if (from.contains("weight")) {
    step.weight = Copy(from["weight"]);
  }
  if (step.kind == HeadStep::kNorm) {
    step.bias = Copy(from["bias"]);
    step.eps = nb::cast<float>(from["eps"]);
  }
  if (step.kind == HeadStep::kAttention) {
    step.heads = nb::cast<int>(from["heads"]);
    step.scale = nb::cast<float>(from["scale"]);
  }
  return step;
}

HeadResult GetResult(const nb::dict& from) {
  HeadResult result;
  if (from.contains("map")) {
    result.map = nb::cast<int>(from["map"]);
  } else {
    result.step = nb::cast<int>(from["step"]);
    result.index = GetIndex(from["index"]);
  }
  if (result.map < 0 && result.step < 0) throw std::invalid_argument("a result is of nothing");
  return result;
}

// An encoder and the threads that run it.
class Encoder {
 public:
  Encoder(const nb::dict& spec, int threads, const std::string& kernel)
      : kernel_(ChooseWholeKernel(kernel)),
        pool_(std::min(64, threads)),
        model_(Read(spec, kernel_)),
        run_(model_, pool_, kernel_) {}

  void Run(const Pixels& pixels, const std::vector<Results>& results) {
    const MapSize& picture = model_.picture;
    if (pixels.shape(1) != static_cast<size_t>(picture.height) ||
        pixels.shape(2) != static_cast<size_t>(picture.width) || pixels.shape(3) != 3) {
      throw std::invalid_argument("pixels are not [B, S, S, 3]");
    }
    if (results.size() != model_.results.size()) {
      throw std::invalid_argument("there are as many arrays as results");
    }
    const size_t batch = pixels.shape(0);
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].size() != batch * model_.values(model_.results[i])) {
        throw std::invalid_argument("a result has another size");
      }
    }
    const nb::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<float*> to(results.size());
    for (size_t image = 0; image < batch; ++image) {
      for (size_t i = 0; i < results.size(); ++i) {
        to[i] = results[i].data() + image * model_.values(model_.results[i]);
      }
      run_.Run(pixels.data() + image * picture.values(), to);
    }
  }

  size_t bytes() const { return model_.bytes(); }

 private:
  static EncoderModel Read(const nb::dict& spec, const WholeKernel& kernel) {
    EncoderModel model;
    model.picture = GetSize(spec["picture"]);
    if (model.picture.channels != 3) throw std::invalid_argument("a picture has three channels");
    model.scale = Copy(nb::cast<StepFloats>(spec["scale"]), 3);
    model.shift = Copy(nb::cast<StepFloats>(spec["shift"]), 3);
    for (nb::handle item : nb::cast<nb::list>(spec["convolutions"])) {
      model.convolutions.push_back(
          GetConvolution(nb::cast<nb::dict>(item), model.convolutions, kernel));
    }
    if (!spec["boxes"].is_none()) {
      const nb::dict boxes = nb::cast<nb::dict>(spec["boxes"]);
      model.box = nb::cast<int>(boxes["box"]);
      model.box_scale = Copy(nb::cast<StepFloats>(boxes["scale"]), 3);
      model.box_shift = Copy(nb::cast<StepFloats>(boxes["shift"]), 3);
      if (model.box < 1 || model.picture.height % model.box || model.picture.width % model.box) {
        throw std::invalid_argument("boxes do not fill the picture");
      }
    }
    for (nb::handle item : nb::cast<nb::list>(spec["steps"])) {
      model.steps.push_back(GetStep(nb::cast<nb::dict>(item), kernel));
    }
    for (nb::handle item : nb::cast<nb::list>(spec["results"])) {
      model.results.push_back(GetResult(nb::cast<nb::dict>(item)));
    }
    return model;
  }

  const WholeKernel& kernel_;
  StepPool pool_;
  const EncoderModel model_;
  EncoderRun run_;
  std::mutex mutex_;
};

}  // namespace

void BindEncode(nb::module_& m) {
  nb::class_<Encoder>(m, "Encoder")
      .def(nb::init<const nb::dict&, int, const std::string&>(), "spec"_a, nb::kw_only(),
           "threads"_a, "kernel"_a)
      .def("run", &Encoder::Run, "pixels"_a.noconvert(), "results"_a)
      .def_prop_ro("bytes", &Encoder::bytes);
}

}  // namespace edgecap
