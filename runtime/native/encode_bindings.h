#pragma once

#include <nanobind/nanobind.h>

namespace edgecap {

// Class ConvolutionEncoder of the Python module.
void BindEncode(nanobind::module_& m);

}  // namespace edgecap
