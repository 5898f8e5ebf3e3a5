// Launches of kernels, the same call for nvcc and for the emulation on the CPU.
#pragma once

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "emulation.h"
#endif

#include <cstddef>
#include <cstdint>

namespace edgecap::gpu {

constexpr unsigned kFullWarp = 0xffffffffu;

// The dynamic shared memory of the block, aligned to 16 bytes.
template <typename T>
__device__ __forceinline__ T* DynamicShared() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) unsigned char edgecap_dynamic_shared[];
  return reinterpret_cast<T*>(edgecap_dynamic_shared);
#else
  return reinterpret_cast<T*>(emulation::machine.dynamic_shared);
#endif
}

// Queues `kernel` on the stream. `block` has whole warps; `shared_bytes` above 48 KB need
// cudaFuncSetAttribute before. Gives what cudaGetLastError says of the launch.
template <typename... Parameters, typename... Arguments>
cudaError_t Launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Arguments... arguments) {
#ifdef __CUDACC__
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Parameters>(arguments)...);
  return cudaGetLastError();
#else
  (void)stream;
  const size_t threads = static_cast<size_t>(block.x) * block.y * block.z;
  if (threads == 0 || threads > emulation::kMaxThreads || threads % emulation::kWarp != 0 ||
      grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  if (shared_bytes > emulation::kMaxShared) return cudaErrorInvalidValue;
  const std::lock_guard<std::mutex> one_at_a_time(emulation::machine.mutex);
  auto body = [&] { kernel(static_cast<Parameters>(arguments)...); };
  using Body = decltype(body);
  emulation::machine.Run(
      grid, block, shared_bytes, [](void* of) { (*static_cast<Body*>(of))(); }, &body);
  return cudaSuccess;
#endif
}

}  // namespace edgecap::gpu
