// Runs a convolutional encoder on pictures, one after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "encode_head.h"
#include "encode_model.h"
#include "encode_rows.h"
#include "step_pool.h"

namespace edgecap {

class EncoderRun {
 public:
  // All three must outlive it. Throws std::invalid_argument for a model whose maps do not fit.
  EncoderRun(const EncoderModel& model, StepPool& pool, const WholeKernel& kernel);

  // pixels : [height, width, 3]; results[i] : of the model's i-th
  void Run(const uint8_t* pixels, const std::vector<float*>& results);

 private:
  struct Map {
    MapSize size;
    MapBytes bytes;
    int slot = 0;  // of slots_
  };

  void Plan();
  const Map& Of(int map) const { return maps_[map + 1]; }
  template <typename T>
  T* At(int map) {
    return slots_[Of(map).slot].as<T>();
  }
  void Dense(int at);
  void Depthwise(int at);
  TileEnd End(int at, size_t to);
  void GiveOut(int at, float* result);
  void Boxes(const uint8_t* pixels);
  const float* Floats(int at);
  // A part's rows of inputs as the product takes them; scales and sums of whole numbers alone.
  struct Inputs {
    const float* floats = nullptr;
    const int8_t* whole = nullptr;
    int stride = 0;
    const float* scales = nullptr;
    const int32_t* sums = nullptr;
  };
  Inputs Gather(int at, int first, int count);

  const EncoderModel& model_;
  StepPool& pool_;
  const WholeKernel& kernel_;
  std::vector<Map> maps_;  // the picture's first
  std::vector<Aligned> slots_;
  HeadRun head_;
  Aligned boxes_;
  std::vector<std::vector<float>> wide_;  // maps in bytes that steps read
};

}  // namespace edgecap
