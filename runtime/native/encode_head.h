// What follows an encoder's convolutions: steps on matrices of a few rows.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "encode_model.h"
#include "step_pool.h"
#include "step_product.h"

namespace edgecap {

class HeadRun {
 public:
  // All must outlive it. Throws std::invalid_argument for steps that do not fit together.
  HeadRun(const EncoderModel& model, StepPool& pool, const WholeKernel& kernel);

  // maps : gives a map's values in floats; -1 is the picture's boxes
  template <typename Maps>
  void Run(Maps&& maps) {
    for (size_t i = 0; i < model_.steps.size(); ++i) {
      const HeadStep& step = model_.steps[i];
      if (step.kind == HeadStep::kMap) {
        Gather(step.index, maps(step.from[0]), matrix(i), step.values());
      } else {
        Step(static_cast<int>(i));
      }
    }
  }

  // Values of a step in the order of `index`, or as they lie for an empty one.
  void GiveOut(const HeadResult& result, float* out);

 private:
  float* matrix(size_t step) { return matrices_[step].as<float>(); }
  void Gather(const std::vector<int32_t>& index, const float* from, float* to, size_t count);
  void Step(int at);
  void Attend(const HeadStep& step, int head, const float* all, float* out);
  void Check(int at) const;

  const EncoderModel& model_;
  StepPool& pool_;
  std::vector<Aligned> matrices_;
  std::map<int, Products> products_;  // by rows
};

}  // namespace edgecap
