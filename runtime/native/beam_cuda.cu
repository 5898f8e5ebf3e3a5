// The kernels of a beam search and their C interface, edgecap_cuda.h.
#include <cstdio>
#include <new>
#include <vector>

#include "beam_results.cuh"
#include "beam_select.cuh"
#include "beam_setup.h"

#ifndef EDGECAP_CUDA_ARCHITECTURES
#ifdef __CUDACC__
#define EDGECAP_CUDA_ARCHITECTURES "unknown"
#else
#define EDGECAP_CUDA_ARCHITECTURES "emulated"
#endif
#endif

namespace edgecap::gpu {
namespace {

constexpr int kWarps = 8;
// As many as registers leave room for: doubles take two each, and ptxas wants more from 10.0 on.
#if defined(__CUDA_ARCH__) && (EDGECAP_FAST_DOUBLE || __CUDA_ARCH__ >= 1000)
constexpr int kBlocksPerProcessor = 2;
#else
constexpr int kBlocksPerProcessor = 3;
#endif

union StepExchange {
  PartialExchange<kWarps> partial;
  SelectExchange<kWarps> select;
};

// One step. Block (part, row) writes one partial result; the last block of an image to get there
// selects for it, and the last image closes the step.
template <typename T>
__global__ void __launch_bounds__(kWarps * 32, kBlocksPerProcessor)
    BeamStep(const BeamView v, const T* logits, size_t row_stride) {
  __shared__ StepExchange exchange;
  __shared__ bool is_last;
  if (!v.control->keep_going) return;
  const int part = blockIdx.x, row = blockIdx.y;
  const int image = row / v.shape.beams;
  const int position = v.control->position;
  int* sequences = DynamicShared<int>();
  if (!v.done[image]) {
    const RowLogits<T> of_row(logits + row * row_stride, v.shape.vocab);
    WritePartial<kWarps>(v, row, part, position, of_row, sequences, exchange.partial);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const unsigned blocks = gridDim.x * v.shape.beams;
    is_last = atomicAdd(&v.arrived[image], 1u) + 1 == blocks;
    if (is_last) v.arrived[image] = 0;
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  SelectImage<kWarps>(v, image, position, StoredLogits<T>{logits, row_stride}, sequences,
                      exchange.select);
}

// A fresh search.
__global__ void __launch_bounds__(256) BeamReset(const BeamView v) {
  const BeamShape& s = v.shape;
  const size_t rows = static_cast<size_t>(s.batch) * s.beams;
  const size_t thread = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x;
  const size_t threads = gridDim.x * static_cast<size_t>(blockDim.x);
  if (thread == 0) {
    *v.control = BeamControl{0, 1, 0, 0};
    *v.position64 = 0;
  }
  for (size_t row = thread; row < rows; row += threads) {
    // The other beams of an image start as copies of its first.
    v.running[row] = row % s.beams == 0 ? 0.0f : kNothing;
    v.tokens[row] = s.bos;
    v.tokens64[row] = s.bos;
    v.parents[row] = static_cast<int>(row);
    v.parents64[row] = static_cast<int64_t>(row);
    v.pool[row] = Finished{kNothing, 0.0f, 0, 0, 0, 0};
  }
  for (size_t image = thread; image < static_cast<size_t>(s.batch); image += threads) {
    v.done[image] = 0;
    v.arrived[image] = 0;
  }
  for (size_t i = thread; i < rows * s.positions; i += threads) v.origin[i] = 0;
  if (!s.has_ancestry) return;
  for (size_t i = thread; i < rows * s.beams * s.positions; i += threads) v.ancestry[i] = 0;
}

__global__ void __launch_bounds__(32) BeamResults(const BeamView v, int count) {
  const int image = blockIdx.x, rank = threadIdx.x;
  if (rank >= count) return;
  const size_t at = static_cast<size_t>(image) * count + rank;
  WriteHypothesis(v, image, rank, v.results + at * ResultBytes(v.shape));
}

int Reset(const BeamView& view, cudaStream_t stream) {
  const size_t cells = static_cast<size_t>(view.shape.batch) * view.shape.beams *
                       view.shape.positions * (view.shape.has_ancestry ? view.shape.beams : 1);
  const unsigned blocks = static_cast<unsigned>(cells / 2048 + 1);
  return Failed(Launch(&BeamReset, dim3(blocks < 256 ? blocks : 256), dim3(256), 0, stream, view));
}

template <typename T>
int Step(const BeamView& view, const void* logits, int64_t row_stride, cudaStream_t stream) {
  if (reinterpret_cast<uintptr_t>(logits) % sizeof(T) != 0) return EDGECAP_ALIGNMENT;
  const BeamShape& s = view.shape;
  const size_t shared = UsesHistory(s) ? kWarps * sizeof(int) * (s.limit + 1) : 0;
  const dim3 grid(static_cast<unsigned>(s.parts), static_cast<unsigned>(s.batch * s.beams));
  return Failed(Launch(&BeamStep<T>, grid, dim3(kWarps * 32), shared, stream, view,
                       static_cast<const T*>(logits), static_cast<size_t>(row_stride)));
}

const char* Words(int code) {
  switch (code) {
    case EDGECAP_OK:
      return "no error";
    case EDGECAP_BATCH:
      return "batch must be 1 to 64 images";
    case EDGECAP_BEAMS:
      return "beams must be 1 to 16";
    case EDGECAP_VOCAB:
      return "the vocabulary must have 2 to 262144 tokens";
    case EDGECAP_POSITIONS:
      return "positions must be 1 to 1024";
    case EDGECAP_LENGTHS:
      return "max_new_tokens must be 1 to the number of positions, min_new_tokens 0 to "
             "max_new_tokens";
    case EDGECAP_NGRAM:
      return "no_repeat_ngram_size must not be negative";
    case EDGECAP_REPETITION:
      return "repetition_penalty must be above 0 and finite";
    case EDGECAP_LENGTH_PENALTY:
      return "length_penalty must be -10 to 10";
    case EDGECAP_EARLY_STOPPING:
      return "early_stopping must be 0 (False), 1 (True) or 2 (\"never\")";
    case EDGECAP_SPECIAL:
      return "bos, eos and pad must not be negative, and eos must be in the vocabulary";
    case EDGECAP_SUPPRESS:
      return "suppress_tokens must be a list of ids that are not negative";
    case EDGECAP_PARTS:
      return "parts must be 0 to 4096, multiprocessors not negative";
    case EDGECAP_NULL:
      return "a pointer is null";
    case EDGECAP_ALIGNMENT:
      return "a pointer is not aligned: the state lies at a multiple of 256 bytes, logits at one "
             "of "
             "their element's size";
    case EDGECAP_DTYPE:
      return "logits must be float32 (0), float16 (1) or bfloat16 (2)";
    case EDGECAP_STRIDE:
      return "row_stride must be at least the vocabulary's size, in elements";
    case EDGECAP_STATE_BYTES:
      return "the state's memory is smaller than edgecap_beam_layout says";
    case EDGECAP_COUNT:
      return "count must be 1 to the number of beams";
    case EDGECAP_NO_CODE:
      return "the kernels were not built for this GPU";
    case EDGECAP_NO_GRAPHS:
      return "the emulation records no graphs";
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace edgecap::gpu

using namespace edgecap::gpu;

extern "C" {

int edgecap_beam_layout(const edgecap_beam_config* config, edgecap_beam_places* places) {
  BeamShape shape;
  if (const int code = MakeShape(config, &shape)) return code;
  if (places == nullptr) return EDGECAP_NULL;
  constexpr uintptr_t kBase = 256;  // so that a missing member, at 0, is told from the first
  size_t bytes = 0;
  const BeamView v = Arrange(shape, kBase, &bytes);
  const auto offset = [](const auto* member) {
    return member == nullptr ? SIZE_MAX : reinterpret_cast<uintptr_t>(member) - kBase;
  };
  *places = {bytes,
             ResultBytes(shape),
             offset(v.control),
             offset(v.tokens),
             offset(v.parents),
             offset(v.tokens64),
             offset(v.parents64),
             offset(v.position64),
             offset(v.origin),
             offset(v.ancestry),
             shape.parts};
  return EDGECAP_OK;
}

int edgecap_beam_init(const edgecap_beam_config* config, void* state, size_t state_bytes,
                      void* stream) {
  edgecap_beam_places places;
  if (const int code = edgecap_beam_layout(config, &places)) return code;
  BeamView view;
  if (const int code = MakeView(config, state, &view)) return code;
  if (state_bytes < places.state_bytes) return EDGECAP_STATE_BYTES;
  std::vector<float> norms(config->max_new_tokens + 1, 1.0f);
  for (int length = 1; length <= config->max_new_tokens; ++length) {
    norms[length] = static_cast<float>(std::pow(length, config->length_penalty));
  }
  std::vector<uint32_t> suppressed((config->vocab + 31) / 32, 0u);
  for (int i = 0; i < config->suppress_count; ++i) {
    const int token = config->suppress_tokens[i];
    if (token < 0) return EDGECAP_SUPPRESS;
    if (token < config->vocab) suppressed[token / 32] |= 1u << token % 32;
  }
  const auto on = static_cast<cudaStream_t>(stream);
  const auto upload = [on](auto* to, const auto& from) {
    return Failed(cudaMemcpyAsync(to, from.data(), from.size() * sizeof(from[0]),
                                  cudaMemcpyHostToDevice, on));
  };
  if (const int code = upload(view.norms, norms)) return code;
  if (const int code = upload(view.suppressed, suppressed)) return code;
  if (const int code = Failed(cudaStreamSynchronize(on))) return code;
  return Reset(view, on);
}

int edgecap_beam_reset(const edgecap_beam_config* config, void* state, void* stream) {
  BeamView view;
  if (const int code = MakeView(config, state, &view)) return code;
  return Reset(view, static_cast<cudaStream_t>(stream));
}

int edgecap_beam_step(const edgecap_beam_config* config, void* state, const void* logits, int dtype,
                      int64_t row_stride, void* stream) {
  BeamView view;
  if (const int code = MakeView(config, state, &view)) return code;
  if (logits == nullptr) return EDGECAP_NULL;
  if (row_stride < config->vocab) return EDGECAP_STRIDE;
  const auto on = static_cast<cudaStream_t>(stream);
  switch (dtype) {
    case EDGECAP_FLOAT32:
      return Step<float>(view, logits, row_stride, on);
    case EDGECAP_FLOAT16:
      return Step<__half>(view, logits, row_stride, on);
    case EDGECAP_BFLOAT16:
      return Step<__nv_bfloat16>(view, logits, row_stride, on);
  }
  return EDGECAP_DTYPE;
}

int edgecap_beam_poll(const edgecap_beam_config* config, const void* state, int32_t* host,
                      void* stream) {
  BeamView view;
  if (const int code = MakeView(config, state, &view)) return code;
  if (host == nullptr) return EDGECAP_NULL;
  return Failed(cudaMemcpyAsync(host, view.control, 2 * sizeof(int32_t), cudaMemcpyDeviceToHost,
                                static_cast<cudaStream_t>(stream)));
}

int edgecap_beam_results(const edgecap_beam_config* config, void* state, int count, void* host,
                         void* stream) {
  BeamView view;
  if (const int code = MakeView(config, state, &view)) return code;
  if (host == nullptr) return EDGECAP_NULL;
  if (count < 1 || count > config->beams) return EDGECAP_COUNT;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto images = static_cast<unsigned>(config->batch);
  if (const int code = Failed(Launch(&BeamResults, dim3(images), dim3(32), 0, on, view, count))) {
    return code;
  }
  return Failed(cudaMemcpyAsync(host, view.results, images * count * ResultBytes(view.shape),
                                cudaMemcpyDeviceToHost, on));
}

const char* edgecap_cuda_message(int code) {
  static thread_local char text[160];
  if (const char* words = Words(code)) return words;
  if (code >= EDGECAP_CUDA_ERROR) {
    const int error = code - EDGECAP_CUDA_ERROR;
    std::snprintf(text, sizeof(text), "CUDA error %d: %s", error,
                  cudaGetErrorString(static_cast<cudaError_t>(error)));
  } else {
    std::snprintf(text, sizeof(text), "unknown error code %d", code);
  }
  return text;
}

const char* edgecap_cuda_architectures(void) { return EDGECAP_CUDA_ARCHITECTURES; }

int edgecap_cuda_check_device(char* text, size_t bytes) {
  if (text != nullptr && bytes > 0) text[0] = '\0';
  int device = 0, major = 0, minor = 0;
  int code = Failed(cudaGetDevice(&device));
  if (code == EDGECAP_OK) {
    code = Failed(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  }
  if (code == EDGECAP_OK) {
    code = Failed(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  }
  if (code == EDGECAP_OK) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, &BeamStep<float>);
    code = error == cudaErrorNoKernelImageForDevice ? EDGECAP_NO_CODE : Failed(error);
  }
  if (code == EDGECAP_OK || text == nullptr) return code;
  if (code == EDGECAP_NO_CODE) {
    std::snprintf(text, bytes,
                  "this GPU has compute capability %d.%d, the kernels are built for %s; build them "
                  "with -DCMAKE_CUDA_ARCHITECTURES=%d%d",
                  major, minor, EDGECAP_CUDA_ARCHITECTURES, major, minor);
  } else {
    std::snprintf(text, bytes, "%s", edgecap_cuda_message(code));
  }
  return code;
}

}  // extern "C"
