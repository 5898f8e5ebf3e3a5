// Kernels whose answers are known, run on the emulation: block index arithmetic, barriers, warp
// exchanges, shared memory of both kinds, atomics and last-block-done counters.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "beam_state.cuh"

using edgecap::gpu::DynamicShared;
using edgecap::gpu::kFullWarp;
using edgecap::gpu::Launch;

namespace {

void Check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::exit(1);
}

// Sums `count` numbers: warp shuffles, shared memory, and the last block adds the blocks' sums.
template <int kThreads>
__global__ void Sum(const int* in, int count, int* sums, unsigned* blocks_done, int* total) {
  __shared__ int warps[kThreads / 32];
  __shared__ bool last;
  int sum = 0;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < count; i += gridDim.x * kThreads) {
    sum += in[i];
  }
  for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(kFullWarp, sum, bits);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    int all = 0;
    for (int i = 0; i < kThreads / 32; ++i) all += warps[i];
    sums[blockIdx.x] = all;
    __threadfence();
    last = atomicAdd(blocks_done, 1) + 1 == gridDim.x;
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  *total = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) *total += sums[i];
  *blocks_done = 0;
}

// Each thread writes its own number, then reads its mirror image's, after a divergent detour.
__global__ void Mirror(int* out) {
  int* shared = DynamicShared<int>();
  const int lane = threadIdx.x % 32;
  Check(shared[threadIdx.x] == -1, "dynamic shared memory starts as NaN");
  shared[threadIdx.x] = static_cast<int>(threadIdx.x + 1000 * blockIdx.x);
  if (lane < 16) {
    const unsigned odd = __ballot_sync(0xffffu, lane & 1);
    Check(odd == 0xaaaau, "half a warp votes");
    Check(__shfl_down_sync(0xffffu, lane, 1, 16) == (lane == 15 ? 15 : lane + 1), "half a warp");
  } else {
    Check(__shfl_up_sync(0xffff0000u, lane, 1, 16) == (lane == 16 ? 16 : lane - 1), "the other");
  }
  Check(__syncthreads_count(lane == 3) == static_cast<int>(blockDim.x / 32), "threads counted");
  if (threadIdx.x >= 32 * (blockDim.x / 64) && lane == 0) return;  // barriers go on without them
  __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void Index(int* out) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * 64 + thread] = block * 64 + thread;
}

template <typename Body>
void WithInts(int count, Body body) {
  int* memory = nullptr;
  Check(cudaMalloc(&memory, count * sizeof(int)) == cudaSuccess, "memory");
  body(memory);
  cudaFree(memory);
}

void Numbers() {
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const __half half = __ushort_as_half(static_cast<unsigned short>(bits));
    const float value = __half2float(half);
    if (value != value) continue;
    Check(__half_as_ushort(__float2half(value)) == bits, "a half survives a float");
  }
  Check(__half_as_ushort(__float2half(65519.9f)) == 0x7bff, "the largest half");
  Check(__half_as_ushort(__float2half(65520.0f)) == 0x7c00, "beyond it");
  Check(__half_as_ushort(__float2half(1.0f + 0x1p-11f)) == 0x3c00, "ties go to even");
  Check(__half_as_ushort(__float2half(1.0f + 0x3p-11f)) == 0x3c02, "ties go to even");
  Check(__bfloat16_as_ushort(__float2bfloat16(1.0f + 0x3p-8f)) == 0x3f82, "bfloat16 rounds");
}

}  // namespace

int main() {
  Numbers();
  for (const bool reverse : {false, true}) {
#ifndef __CUDACC__
    edgecap::emulation::machine.reverse_blocks = reverse;
#endif
    for (const int count : {1, 31, 1000, 70001}) {
      WithInts(count + 16 + 2, [&](int* in) {
        for (int i = 0; i < count; ++i) in[i] = i % 97 - 11;
        int* sums = in + count;
        unsigned* blocks_done = reinterpret_cast<unsigned*>(sums + 16);
        *blocks_done = 0;
        int expected = 0;
        for (int i = 0; i < count; ++i) expected += in[i];
        for (int again = 0; again < 2; ++again) {
          const auto status = Launch(&Sum<256>, dim3(16), dim3(256), 0, nullptr, in, count, sums,
                                     blocks_done, sums + 17);
          Check(status == cudaSuccess && sums[17] == expected, "a sum over blocks");
        }
      });
    }
  }
  WithInts(3 * 128, [](int* out) {
    Check(Launch(&Mirror, dim3(3), dim3(128), 128 * sizeof(int), nullptr, out) == cudaSuccess, "");
    for (int i = 0; i < 3 * 128; ++i) {
      const bool left = i % 128 >= 64 && i % 32 == 0;
      Check(out[i] == (left ? -1 : 1000 * (i / 128) + 127 - i % 128), "a mirror image");
    }
  });
  WithInts(2 * 3 * 4 * 64, [](int* out) {
    Check(Launch(&Index, dim3(2, 3, 4), dim3(4, 8, 2), 0, nullptr, out) == cudaSuccess, "");
    for (int i = 0; i < 2 * 3 * 4 * 64; ++i) Check(out[i] == i, "each thread has its own index");
  });
  Check(Launch(&Index, dim3(1), dim3(33), 0, nullptr, static_cast<int*>(nullptr)) ==
            cudaErrorInvalidConfiguration,
        "only whole warps");
  std::puts("sound");
  return 0;
}
