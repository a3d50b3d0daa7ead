// Offences against what the kernels promise, for the tests of the tests.
#include "device.hpp"

#if !defined(__CUDACC__)
#include <pybind11/pybind11.h>
#endif

namespace {

// Thread i takes its neighbour's value without waiting until it is there.
__global__ void no_barrier(const float* x, float* result, bool barrier) {
  NDP_SHARED(float, values, 256);
  values[threadIdx.x] = x[threadIdx.x];
  if (barrier) __syncthreads();
  result[threadIdx.x] = values[(threadIdx.x + 32) % 256];
}

__global__ void half_a_barrier(float* result) {
  if (threadIdx.x < 128) __syncthreads();
  result[threadIdx.x] = 1;
  __syncthreads();
}

__global__ void hidden_atomic_add(const float* x, float* result) {
  atomicAdd(result, x[blockIdx.x]);
}

}  // namespace

#if !defined(__CUDACC__)

PYBIND11_MODULE(_planted, m) {
  const auto at = [](uintptr_t address) { return reinterpret_cast<float*>(address); };
  m.def("seed", [](uint64_t value) { ndp::emulated::seed(value, 4); });
  m.def("no_barrier", [at](uintptr_t x, uintptr_t result, bool barrier) {
    NDP_LAUNCH((no_barrier), 1, 256, nullptr, at(x), at(result), barrier);
  });
  m.def("half_a_barrier", [at](uintptr_t result) {
    NDP_LAUNCH((half_a_barrier), 1, 256, nullptr, at(result));
  });
  m.def("hidden_atomic_add", [at](uintptr_t x, int n, uintptr_t result) {
    NDP_LAUNCH((hidden_atomic_add), static_cast<unsigned>(n), 1, nullptr, at(x), at(result));
  });
}

#else

// For nvcc, which makes PTX of what is launched. A host compiler takes a fused multiplication only
// where the processor is known to have one.
static __global__ void hidden_fma(const float* x, float* result) {
  *result = fmaf(x[0], x[1], x[2]);
}

void launch_all(float* x, float* result) {
  NDP_LAUNCH((no_barrier), 1, 256, nullptr, x, result, true);
  NDP_LAUNCH((half_a_barrier), 1, 256, nullptr, result);
  NDP_LAUNCH((hidden_atomic_add), 1, 1, nullptr, x, result);
  NDP_LAUNCH((hidden_fma), 1, 1, nullptr, x, result);
}

#endif
