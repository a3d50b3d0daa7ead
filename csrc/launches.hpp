// What kernels over many elements share: the size of their blocks and grids, and the choice by dtype.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "device.hpp"
#include "elements.hpp"

namespace ndp {

constexpr int kBlockThreads = 256;
constexpr int kBlockWarps = kBlockThreads / kWarp;
constexpr int kBlocksResident = 8;  // of a processor

__host__ __device__ inline int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Blocks for so many threads' worth of work, `blocks` of them at most; 0: as many as run at once.
inline unsigned grid_for(int64_t threads, int blocks) {
  const int64_t most = blocks > 0 ? blocks : blocks_at_once(kBlocksResident);
  return static_cast<unsigned>(std::clamp<int64_t>(divided_up(threads, kBlockThreads), 1, most));
}

__device__ inline int64_t own_thread() {
  return int64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
}
__device__ inline int64_t all_threads() { return int64_t{gridDim.x} * kBlockThreads; }

// run(an element of the dtype). Throws std::invalid_argument in the name of `op` for a dtype that the
// ops do not take.
template <class Run>
auto with_element(Dtype dtype, const char* op, const Run& run) {
  switch (dtype) {
    case Dtype::float64:
      return run(double{});
    case Dtype::float32:
      return run(float{});
    case Dtype::bfloat16:
      return run(Bfloat16{});
    case Dtype::float16:
      return run(Float16{});
    default:
      throw std::invalid_argument(std::string(op) + " takes float64, float32, bfloat16 and float16");
  }
}

// x rounded once; NaN becomes the positive quiet one.
template <class T>
__device__ inline T rounded_to(double x) {
  return element_of<T>(round_double(x, format_of_element<T>()));
}

}  // namespace ndp
