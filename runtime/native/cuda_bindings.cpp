#include "cuda_bindings.h"

#include <dlfcn.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "edgecap_cuda.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace edgecap {
namespace {

// A device address, a host address or a stream handle, as PyCUDA, torch and CuPy give them; None is
// a null pointer.
using Address = std::optional<uintptr_t>;

void* Pointer(const Address& address) { return reinterpret_cast<void*>(address.value_or(0)); }

// The configuration with the list it points to.
struct Config {
  edgecap_beam_config plain{};
  std::vector<int32_t> suppressed;

  const edgecap_beam_config* Get() {
    plain.suppress_tokens = suppressed.data();
    return &plain;
  }
};

const edgecap_beam_config* Get(Config* config) {
  return config == nullptr ? nullptr : config->Get();
}

// The functions of one library. It stays loaded: kernels of it may still run.
class Kernels {
 public:
  explicit Kernels(const std::string& path) {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) throw std::runtime_error(Said());
    Find(handle, "edgecap_beam_layout", &layout_);
    Find(handle, "edgecap_beam_init", &init_);
    Find(handle, "edgecap_beam_reset", &reset_);
    Find(handle, "edgecap_beam_step", &step_);
    Find(handle, "edgecap_beam_poll", &poll_);
    Find(handle, "edgecap_beam_results", &results_);
    Find(handle, "edgecap_beam_append", &append_);
    Find(handle, "edgecap_capture_begin", &begin_);
    Find(handle, "edgecap_capture_end", &end_);
    Find(handle, "edgecap_capture_launch", &launch_);
    Find(handle, "edgecap_capture_free", &free_);
    Find(handle, "edgecap_cuda_message", &message_);
    Find(handle, "edgecap_cuda_architectures", &architectures_);
    Find(handle, "edgecap_cuda_check_device", &check_device_);
  }

  void Layout(Config* config, edgecap_beam_places* places) const {
    Check("edgecap_beam_layout", layout_(Get(config), places));
  }
  void Init(Config* config, Address state, size_t bytes, Address stream) const {
    Check("edgecap_beam_init", init_(Get(config), Pointer(state), bytes, Pointer(stream)));
  }
  void Reset(Config* config, Address state, Address stream) const {
    Check("edgecap_beam_reset", reset_(Get(config), Pointer(state), Pointer(stream)));
  }
  void Step(Config* config, Address state, Address logits, int dtype, int64_t row_stride,
            Address stream) const {
    Check("edgecap_beam_step",
          step_(Get(config), Pointer(state), Pointer(logits), dtype, row_stride, Pointer(stream)));
  }
  void Poll(Config* config, Address state, Address host, Address stream) const {
    auto* to = static_cast<int32_t*>(Pointer(host));
    Check("edgecap_beam_poll", poll_(Get(config), Pointer(state), to, Pointer(stream)));
  }
  void Results(Config* config, Address state, int count, Address host, Address stream) const {
    Check("edgecap_beam_results",
          results_(Get(config), Pointer(state), count, Pointer(host), Pointer(stream)));
  }
  void Append(Config* config, Address state, Address rows, Address cache, int64_t row_bytes,
              Address stream) const {
    Check("edgecap_beam_append", append_(Get(config), Pointer(state), Pointer(rows), Pointer(cache),
                                         row_bytes, Pointer(stream)));
  }
  void Begin(Address stream) const { Check("edgecap_capture_begin", begin_(Pointer(stream))); }
  uintptr_t End(Address stream) const {
    void* graph = nullptr;
    Check("edgecap_capture_end", end_(Pointer(stream), &graph));
    return reinterpret_cast<uintptr_t>(graph);
  }
  void Launch(Address graph, Address stream) const {
    Check("edgecap_capture_launch", launch_(Pointer(graph), Pointer(stream)));
  }
  void Free(Address graph) const { Check("edgecap_capture_free", free_(Pointer(graph))); }
  std::string Message(int code) const { return message_(code); }
  std::string Architectures() const { return architectures_(); }
  void CheckDevice() const {
    char text[256];
    if (check_device_(text, sizeof(text)) != EDGECAP_OK) throw std::runtime_error(text);
  }

 private:
  static std::string Said() {
    const char* said = dlerror();
    return said == nullptr ? "dlopen" : said;
  }

  template <typename Function>
  static void Find(void* handle, const char* name, Function** found) {
    *found = reinterpret_cast<Function*>(dlsym(handle, name));
    if (*found == nullptr) throw std::runtime_error(Said());
  }

  void Check(const char* name, int code) const {
    if (code != EDGECAP_OK) throw std::runtime_error(std::string(name) + ": " + message_(code));
  }

  decltype(edgecap_beam_layout)* layout_;
  decltype(edgecap_beam_init)* init_;
  decltype(edgecap_beam_reset)* reset_;
  decltype(edgecap_beam_step)* step_;
  decltype(edgecap_beam_poll)* poll_;
  decltype(edgecap_beam_results)* results_;
  decltype(edgecap_beam_append)* append_;
  decltype(edgecap_capture_begin)* begin_;
  decltype(edgecap_capture_end)* end_;
  decltype(edgecap_capture_launch)* launch_;
  decltype(edgecap_capture_free)* free_;
  decltype(edgecap_cuda_message)* message_;
  decltype(edgecap_cuda_architectures)* architectures_;
  decltype(edgecap_cuda_check_device)* check_device_;
};

template <auto Member>
auto Getter() {
  return [](const Config& config) { return config.plain.*Member; };
}

template <auto Member, typename Value>
auto Setter() {
  return [](Config& config, Value value) { config.plain.*Member = value; };
}

template <auto Member, typename Class>
void Field(Class& bound, const char* name) {
  using Value = std::remove_reference_t<decltype(std::declval<edgecap_beam_config>().*Member)>;
  bound.def_prop_rw(name, Getter<Member>(), Setter<Member, Value>());
}

}  // namespace

void BindCuda(nb::module_& m) {
  using C = edgecap_beam_config;
  nb::class_<Config> config(m, "BeamConfig", "edgecap_beam_config of edgecap_cuda.h.");
  config.def(nb::init<>());
  Field<&C::batch>(config, "batch");
  Field<&C::beams>(config, "beams");
  Field<&C::vocab>(config, "vocab");
  Field<&C::positions>(config, "positions");
  Field<&C::max_new_tokens>(config, "max_new_tokens");
  Field<&C::min_new_tokens>(config, "min_new_tokens");
  Field<&C::no_repeat_ngram_size>(config, "no_repeat_ngram_size");
  Field<&C::early_stopping>(config, "early_stopping");
  Field<&C::bos>(config, "bos");
  Field<&C::eos>(config, "eos");
  Field<&C::pad>(config, "pad");
  Field<&C::ancestry>(config, "ancestry");
  Field<&C::multiprocessors>(config, "multiprocessors");
  Field<&C::parts>(config, "parts");
  Field<&C::repetition_penalty>(config, "repetition_penalty");
  Field<&C::length_penalty>(config, "length_penalty");
  config.def_prop_rw(
      "suppress_tokens", [](const Config& c) { return c.suppressed; },
      [](Config& c, std::vector<int32_t> tokens) {
        c.suppressed = std::move(tokens);
        c.plain.suppress_count = static_cast<int32_t>(c.suppressed.size());
      });

  using P = edgecap_beam_places;
  nb::class_<P>(m, "BeamPlaces", "Offsets in bytes from the start of a search's state.")
      .def(nb::init<>())
      .def_ro("state_bytes", &P::state_bytes)
      .def_ro("result_bytes", &P::result_bytes)
      .def_ro("control", &P::control)
      .def_ro("tokens", &P::tokens)
      .def_ro("parents", &P::parents)
      .def_ro("tokens64", &P::tokens64)
      .def_ro("parents64", &P::parents64)
      .def_ro("position64", &P::position64)
      .def_ro("origin", &P::origin)
      .def_ro("ancestry", &P::ancestry)
      .def_ro("parts", &P::parts);

  // What may wait for the device, or run at once in the emulation, does not hold the GIL.
  const auto freely = nb::call_guard<nb::gil_scoped_release>();
  nb::class_<Kernels>(m, "CudaKernels",
                      "The functions of edgecap_cuda.h in one library, on raw addresses and stream "
                      "handles. Each raises RuntimeError with a line on what is wrong.")
      .def(nb::init<const std::string&>(), "path"_a)
      .def("edgecap_beam_layout", &Kernels::Layout, "config"_a.none(), "places"_a.none())
      .def("edgecap_beam_init", &Kernels::Init, "config"_a.none(), "state"_a.none(), "bytes"_a,
           "stream"_a.none(), freely)
      .def("edgecap_beam_reset", &Kernels::Reset, "config"_a.none(), "state"_a.none(),
           "stream"_a.none(), freely)
      .def("edgecap_beam_step", &Kernels::Step, "config"_a.none(), "state"_a.none(),
           "logits"_a.none(), "dtype"_a, "row_stride"_a, "stream"_a.none(), freely)
      .def("edgecap_beam_poll", &Kernels::Poll, "config"_a.none(), "state"_a.none(),
           "host"_a.none(), "stream"_a.none(), freely)
      .def("edgecap_beam_results", &Kernels::Results, "config"_a.none(), "state"_a.none(),
           "count"_a, "host"_a.none(), "stream"_a.none(), freely)
      .def("edgecap_beam_append", &Kernels::Append, "config"_a.none(), "state"_a.none(),
           "rows"_a.none(), "cache"_a.none(), "row_bytes"_a, "stream"_a.none(), freely)
      .def("edgecap_capture_begin", &Kernels::Begin, "stream"_a.none())
      .def("edgecap_capture_end", &Kernels::End, "stream"_a.none(), freely)
      .def("edgecap_capture_launch", &Kernels::Launch, "graph"_a.none(), "stream"_a.none(), freely)
      .def("edgecap_capture_free", &Kernels::Free, "graph"_a.none())
      .def("edgecap_cuda_message", &Kernels::Message, "code"_a)
      .def("edgecap_cuda_architectures", &Kernels::Architectures)
      .def("edgecap_cuda_check_device", &Kernels::CheckDevice, freely);
}

}  // namespace edgecap
