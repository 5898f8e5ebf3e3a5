// Device memory of a decoder: errors that say how much was needed, and weights sent in one piece.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "decoder_api.h"
#include "launch.h"

namespace edgecap::gpu {

struct Failure {
  int code;
  std::string text;
};

inline std::string Format(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return text;
}

inline void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not find it
  throw Failure{EDGECAP_DECODER_CUDA, Format("%s: %s", what, cudaGetErrorString(error))};
}

inline double Megabytes(size_t bytes) { return static_cast<double>(bytes) / 1e6; }

template <typename T>
void Allocate(T** memory, size_t bytes, const std::string& what) {
  const cudaError_t error = cudaMalloc(memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Failure{EDGECAP_DECODER_NO_MEMORY,
                  Format("%s need %.1f MB on the GPU, which has no such room left", what.c_str(),
                         Megabytes(bytes))};
  }
  Check(error, "cudaMalloc");
}

// Copies the description's host arrays to one piece of device memory. Equal host addresses, such as
// of a head that is the words' own matrix, are one array.
class Uploads {
 public:
  template <typename T>
  void Add(const T*& array, size_t bytes) {
    if (array == nullptr) return;
    const auto found = places_.find(array);
    if (found == places_.end()) {
      places_[array] = {size_, bytes};
      size_ += (bytes + 255) & ~size_t(255);
    }
    pointers_.push_back(reinterpret_cast<const void**>(&array));
  }

  size_t size() const { return size_; }

  unsigned char* Run() {
    unsigned char* device = nullptr;
    Allocate(&device, size_, "the decoder's weights");
    for (const auto& [host, place] : places_) {
      const cudaError_t error =
          cudaMemcpy(device + place.first, host, place.second, cudaMemcpyHostToDevice);
      if (error != cudaSuccess) {
        cudaFree(device);
        Check(error, "copying the weights");
      }
    }
    for (const void** pointer : pointers_) *pointer = device + places_[*pointer].first;
    return device;
  }

 private:
  std::map<const void*, std::pair<size_t, size_t>> places_;
  std::vector<const void**> pointers_;
  size_t size_ = 0;
};

}  // namespace edgecap::gpu
