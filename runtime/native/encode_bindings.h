#pragma once

#include <nanobind/nanobind.h>

namespace edgecap {

// Class Encoder of the Python module.
void BindEncode(nanobind::module_& m);

}  // namespace edgecap
