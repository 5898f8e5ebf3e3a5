// Whole-number products for any processor, and which of them this one can run.
#include <stdexcept>

#include "step_clones.h"
#include "step_kernels.h"

namespace edgecap {
namespace {

void Portable(const uint8_t* weights, int groups, int blocks, const int8_t* x, int stride,
              const int32_t*, int rows, int32_t* result) {
  const int8_t* w = reinterpret_cast<const int8_t*>(weights);
  for (int b = 0; b < blocks; ++b) {
    for (int r = 0; r < rows; ++r) {
      int32_t sums[kLanes] = {};
      for (int g = 0; g < groups; ++g) {
        const int8_t* from = w + (static_cast<size_t>(b) * groups + g) * kLanes * 4;
        const int8_t* value = x + static_cast<size_t>(r) * stride + g * 4;
        for (int lane = 0; lane < kLanes; ++lane) {
          for (int i = 0; i < 4; ++i) sums[lane] += from[lane * 4 + i] * value[i];
        }
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        result[r * kTileOutputs + b * kLanes + lane] = sums[lane];
      }
    }
  }
}

std::vector<WholeKernel> Find() {
  std::vector<WholeKernel> kernels;
  AddProcessorKernels(&kernels);
  kernels.push_back({"portable", false, Portable, SumWhole, nullptr});
  return kernels;
}

}  // namespace

EDGECAP_STEP_CLONES int32_t SumWhole(const int8_t* x, int count) {
  int32_t sum = 0;
  for (int i = 0; i < count; ++i) sum += x[i];
  return sum;
}

const std::vector<WholeKernel>& WholeKernels() {
  static const std::vector<WholeKernel> kernels = Find();
  return kernels;
}

const WholeKernel& ChooseWholeKernel(const std::string& name) {
  std::string known;
  for (const WholeKernel& kernel : WholeKernels()) {
    if (name.empty() || name == kernel.name) return kernel;
    known += (known.empty() ? "" : ", ") + std::string(kernel.name);
  }
  throw std::invalid_argument("no kernel " + name + " here; " + known + " run");
}

#if !defined(__x86_64__) && !defined(__aarch64__)
void AddProcessorKernels(std::vector<WholeKernel>*) {}
#endif

}  // namespace edgecap
