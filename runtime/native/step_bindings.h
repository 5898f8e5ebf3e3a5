#pragma once

#include <nanobind/nanobind.h>

namespace edgecap {

// Classes StepDecoder and StepRun of the Python module.
void BindStep(nanobind::module_& m);

}  // namespace edgecap
