// The Python face of the kernels.
#include <nanobind/nanobind.h>
NB_MODULE(_native, module) { (void)module; }
