// Decoders as Python describes them: dictionaries of sizes and float32 arrays. See
// runtime/engines/native_spec.py, which makes them.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <string>

#include "step_decoder.h"
#include "step_recurrent.h"

namespace edgecap {

using StepFloats = nanobind::ndarray<const float, nanobind::c_contig, nanobind::device::cpu>;

struct SpecPrecision {
  Precision all;
  Precision head;  // of the last matrix
};

// Throws std::invalid_argument for a name that is none.
Precision GetPrecision(const std::string& name);

// (weight [out, in], bias [out] or None); None for an empty matrix.
Matrix GetMatrix(nanobind::handle object, Precision precision, const WholeKernel& kernel);

Activation GetActivation(nanobind::handle name);

// Both throw std::invalid_argument for arrays that do not fit together.
StepModel ReadTransformer(const nanobind::dict& spec, SpecPrecision precision,
                          const WholeKernel& kernel);
RecurrentModel ReadRecurrent(const nanobind::dict& spec, SpecPrecision precision,
                             const WholeKernel& kernel);

// Bytes of packed weights and tables.
size_t BytesOf(const StepModel& model);
size_t BytesOf(const RecurrentModel& model);

}  // namespace edgecap
