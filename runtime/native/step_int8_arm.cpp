// Whole-number products for 64-bit ARM: NEON, and its dot product (ARMv8.2).
#include "step_clones.h"
#include "step_kernels.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include <cstring>

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace edgecap {
namespace {

#if defined(__clang__)
#define EDGECAP_DOT __attribute__((target("dotprod")))
#else
#define EDGECAP_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

inline int32_t Four(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return four;
}

// Sixteen outputs in four vectors.
template <int kRows>
EDGECAP_DOT void DotBlock(const int8_t* weights, int groups, const int8_t* x, int stride,
                          int32_t* result) {
  int32x4_t total[kRows][4];
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int part = 0; part < 4; ++part) total[r][part] = vdupq_n_s32(0);
  }
  for (int g = 0; g < groups; ++g) {
    int8x16_t w[4];
    EDGECAP_UNROLL
    for (int part = 0; part < 4; ++part) w[part] = vld1q_s8(weights + g * 64 + part * 16);
    EDGECAP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int32_t four = Four(x + static_cast<size_t>(r) * stride + g * 4);
      const int8x16_t value = vreinterpretq_s8_s32(vdupq_n_s32(four));
      EDGECAP_UNROLL
      for (int part = 0; part < 4; ++part) {
        total[r][part] = vdotq_s32(total[r][part], w[part], value);
      }
    }
  }
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int part = 0; part < 4; ++part) {
      vst1q_s32(result + r * kTileOutputs + part * 4, total[r][part]);
    }
  }
}

// Products of bytes fit 16 bits; two of an output are summed in 32, the other two at the end.
template <int kRows>
void NeonBlock(const int8_t* weights, int groups, const int8_t* x, int stride, int32_t* result) {
  int32x4_t total[kRows][8];
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int part = 0; part < 8; ++part) total[r][part] = vdupq_n_s32(0);
  }
  for (int g = 0; g < groups; ++g) {
    EDGECAP_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int32_t four = Four(x + static_cast<size_t>(r) * stride + g * 4);
      const int8x8_t value = vreinterpret_s8_s32(vdup_n_s32(four));
      EDGECAP_UNROLL
      for (int part = 0; part < 8; ++part) {
        const int16x8_t products = vmull_s8(vld1_s8(weights + g * 64 + part * 8), value);
        total[r][part] = vpadalq_s16(total[r][part], products);
      }
    }
  }
  EDGECAP_UNROLL
  for (int r = 0; r < kRows; ++r) {
    EDGECAP_UNROLL
    for (int part = 0; part < 4; ++part) {
      vst1q_s32(result + r * kTileOutputs + part * 4,
                vpaddq_s32(total[r][2 * part], total[r][2 * part + 1]));
    }
  }
}

void Dot(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
         const int32_t*, int rows, int32_t* result) {
  for (int b = 0; b < blocks; ++b) {
    const int8_t* from =
        reinterpret_cast<const int8_t*>(weights) + static_cast<size_t>(b) * groups * 64;
    int32_t* to = result + b * kLanes;
    if (rows == kTileRows) {
      DotBlock<kTileRows>(from, groups, x, stride, to);
      continue;
    }
    for (int r = 0; r < rows; ++r) {
      DotBlock<1>(from, groups, x + static_cast<size_t>(r) * stride, stride, to + r * kTileOutputs);
    }
  }
}

void Neon(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
          const int32_t*, int rows, int32_t* result) {
  for (int b = 0; b < blocks; ++b) {
    const int8_t* from =
        reinterpret_cast<const int8_t*>(weights) + static_cast<size_t>(b) * groups * 64;
    int32_t* to = result + b * kLanes;
    int r = 0;
    for (; r + 2 <= rows; r += 2) {
      NeonBlock<2>(from, groups, x + static_cast<size_t>(r) * stride, stride,
                   to + r * kTileOutputs);
    }
    if (r < rows) {
      NeonBlock<1>(from, groups, x + static_cast<size_t>(r) * stride, stride,
                   to + r * kTileOutputs);
    }
  }
}

bool HasDot() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return false;
#endif
}

}  // namespace

void AddProcessorKernels(std::vector<WholeKernel>* kernels) {
  if (HasDot()) kernels->push_back({"neon-dot", false, Dot, SumWhole, nullptr});
  kernels->push_back({"neon", false, Neon, SumWhole, nullptr});
}

}  // namespace edgecap
#endif
