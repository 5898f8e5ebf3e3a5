#pragma once

#include <nanobind/nanobind.h>

namespace edgecap {

// Classes CudaKernels, BeamConfig and BeamPlaces of the Python module: edgecap_cuda.h, whose
// library is loaded when it is asked for, so that the module itself needs no CUDA.
void BindCuda(nanobind::module_& m);

}  // namespace edgecap
