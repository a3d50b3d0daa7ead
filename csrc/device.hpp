// What a `.cu` file sees of the machine. nvcc gives it the GPU; a host compiler the emulated grid of
// emulated.hpp, so that the very same kernels, indices and barriers included, run in the tests
// without a GPU.
//
// The rules that keep one source fit for both:
// - kernels are launched by NDP_LAUNCH, shared memory is declared by NDP_SHARED;
// - a loop that waits for another block calls pause();
// - nothing but what is here or in the numerics' headers (NDP_HD) is called from a kernel.
//
// Numerics: files are compiled with -fmad=false, so that a + b * c is two roundings on both sides.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define NDP_SHARED(T, name, count) __shared__ T name[count]

// NDP_LAUNCH((kernel<T>), grid, block, stream, arguments...)
#define NDP_LAUNCH(kernel, grid, block, stream, ...)                                    \
  do {                                                                                  \
    NDP_UNWRAP kernel<<<(grid), (block), 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__); \
    ::ndp::check_launch(cudaGetLastError(), #kernel);                                   \
  } while (false)
#define NDP_UNWRAP(...) __VA_ARGS__

namespace ndp {

using Stream = void*;  // a cudaStream_t

inline void check_launch(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("launching ") + what + ": " + cudaGetErrorString(error));
}

// How many blocks of this kernel's kind the device runs at once: enough to fill it.
inline int blocks_at_once(int per_processor) {
  int device = 0, processors = 0;
  check_launch(cudaGetDevice(&device), "a kernel");
  check_launch(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
               "a kernel");
  return processors * per_processor;
}

// Zeros on the stream, without waiting.
inline void clear_on(Stream stream, void* memory, size_t bytes) {
  check_launch(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)), "memset");
}

__device__ inline void pause() { __nanosleep(64); }

}  // namespace ndp

#else

#include "emulated.hpp"

#endif

namespace ndp {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// 64-bit integers have no atomic addition of their own with a sign; the bits are the same.
__device__ inline void atomic_add(int64_t* to, int64_t x) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(x));
}

// True in the block that ends last: all others' writes to global memory are then seen by all of
// its threads. `arrived` is 0 before the launch, and again afterwards.
__device__ inline bool last_block(unsigned* arrived, unsigned blocks) {
  NDP_SHARED(bool, last, 1);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last[0] = atomicAdd(arrived, 1u) == blocks - 1;
  __syncthreads();
  if (!last[0]) return false;
  if (threadIdx.x == 0) *arrived = 0;
  __threadfence();
  return true;
}

}  // namespace ndp
