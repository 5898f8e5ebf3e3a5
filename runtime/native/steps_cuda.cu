// What lets another engine's decoder steps run under the beam search without the host: their rows
// go to the caches' slots on the device, and a few steps are recorded as one CUDA graph.
#include "beam_setup.h"

namespace edgecap::gpu {
namespace {

constexpr int kThreads = 256;

// Row (image, beam) of `rows` to slot position * K + beam of the image's cache, in units of T.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    AppendRows(const BeamView v, const T* rows, T* cache, int width) {
  if (!v.control->keep_going) return;
  const int beams = v.shape.beams, row = blockIdx.y;
  const size_t slot = static_cast<size_t>(v.control->position) * beams + row % beams;
  const size_t image = static_cast<size_t>(row / beams) * beams * v.shape.positions;
  T* to = cache + (image + slot) * width;
  const T* from = rows + static_cast<size_t>(row) * width;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < width; i += gridDim.x * kThreads) {
    to[i] = from[i];
  }
}

template <typename T>
int Append(const BeamView& view, const void* rows, void* cache, int64_t row_bytes,
           cudaStream_t stream) {
  const int width = static_cast<int>(row_bytes / sizeof(T));
  const int blocks = (width + 4 * kThreads - 1) / (4 * kThreads);
  const dim3 grid(static_cast<unsigned>(blocks < 64 ? blocks : 64),
                  static_cast<unsigned>(view.shape.batch * view.shape.beams));
  return Failed(Launch(&AppendRows<T>, grid, dim3(kThreads), 0, stream, view,
                       static_cast<const T*>(rows), static_cast<T*>(cache), width));
}

}  // namespace
}  // namespace edgecap::gpu

using namespace edgecap::gpu;

extern "C" {

int edgecap_beam_append(const edgecap_beam_config* config, const void* state, const void* rows,
                        void* cache, int64_t row_bytes, void* stream) {
  constexpr int64_t kLongest = int64_t{1} << 30;
  BeamView view;
  if (const int code = MakeView(config, state, &view)) return code;
  if (rows == nullptr || cache == nullptr) return EDGECAP_NULL;
  if (row_bytes < 1 || row_bytes > kLongest) return EDGECAP_STRIDE;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto together = reinterpret_cast<uintptr_t>(rows) | reinterpret_cast<uintptr_t>(cache) |
                        static_cast<uintptr_t>(row_bytes);
  if (together % sizeof(uint64_t) == 0) return Append<uint64_t>(view, rows, cache, row_bytes, on);
  if (together % sizeof(uint16_t) == 0) return Append<uint16_t>(view, rows, cache, row_bytes, on);
  return Append<uint8_t>(view, rows, cache, row_bytes, on);
}

#ifdef __CUDACC__

int edgecap_capture_begin(void* stream) {
  // Relaxed: engines load kernels lazily.
  return Failed(
      cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeRelaxed));
}

int edgecap_capture_end(void* stream, void** graph) {
  if (graph == nullptr) return EDGECAP_NULL;
  *graph = nullptr;
  cudaGraph_t captured = nullptr;
  cudaError_t error = cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &captured);
  if (error != cudaSuccess) return Failed(error);
  cudaGraphExec_t made = nullptr;
  error = cudaGraphInstantiateWithFlags(&made, captured, 0);
  cudaGraphDestroy(captured);
  *graph = made;
  return Failed(error);
}

int edgecap_capture_launch(void* graph, void* stream) {
  if (graph == nullptr) return EDGECAP_NULL;
  return Failed(
      cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(stream)));
}

int edgecap_capture_free(void* graph) {
  if (graph == nullptr) return EDGECAP_OK;
  return Failed(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
}

#else

int edgecap_capture_begin(void*) { return EDGECAP_NO_GRAPHS; }
int edgecap_capture_end(void*, void**) { return EDGECAP_NO_GRAPHS; }
int edgecap_capture_launch(void*, void*) { return EDGECAP_NO_GRAPHS; }
int edgecap_capture_free(void*) { return EDGECAP_NO_GRAPHS; }

#endif  // __CUDACC__

}  // extern "C"
