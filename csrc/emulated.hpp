// A grid of blocks of threads on the host, for tests: kernels compiled by a host compiler run as
// they would on a GPU, one thread at a time. Every thread is a coroutine with a stack of its own
// that runs until it waits at a barrier, trades values with its warp, or meets an atomic; which warp
// of which block goes on is then drawn at random, from a seed. So an order that a kernel does not
// enforce is an order that changes here.
//
// What it does not show: two threads at the very same moment (torn writes), and memory that becomes
// visible late.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace ndp {

using Stream = void*;

namespace emulated {

// Of the thread that runs.
struct Place {
  dim3 thread, block, block_size, grid_size;
};
const Place& place();

// What the seed of the next launches is, and how many blocks are under way at once.
void seed(uint64_t value, int resident_blocks);

// Runs body() in every thread. Throws std::runtime_error when all threads wait and none can go on,
// and when those of a block wait at different barriers.
void launch(dim3 grid, dim3 block, const std::function<void()>& body);

// Memory of the running block; `site` tells the places that ask for it apart.
void* shared(const void* site, size_t bytes);

// Of the block; whether any thread came with true. site: where in the source; a launch whose threads
// wait at different ones throws, though a GPU might take them for one.
bool barrier(const char* site, bool value = false);

// Perhaps lets others go first: before every atomic.
void maybe_yield();
void yield();

// Gives each lane of `mask` what the lane `from` of its warp gave. All of the mask must come here.
void trade(unsigned mask, const void* mine, void* theirs, size_t bytes, int from);
// The same of all lanes at once: 32 values, those outside of the mask zero.
void gather(unsigned mask, const void* mine, void* all, size_t bytes);

inline int lane() {
  const Place& p = place();
  const unsigned linear =
      p.thread.x + p.block_size.x * (p.thread.y + p.block_size.y * p.thread.z);
  return static_cast<int>(linear % 32);
}

}  // namespace emulated

inline int blocks_at_once(int per_processor) { return 3 * per_processor; }
inline void clear_on(Stream, void* memory, size_t bytes) { std::memset(memory, 0, bytes); }
inline void pause() { emulated::yield(); }

}  // namespace ndp

#define threadIdx (::ndp::emulated::place().thread)
#define blockIdx (::ndp::emulated::place().block)
#define blockDim (::ndp::emulated::place().block_size)
#define gridDim (::ndp::emulated::place().grid_size)

#define NDP_SHARED(T, name, count)                                                      \
  static const char name##_site = 0;                                                    \
  T* const name = static_cast<T*>(::ndp::emulated::shared(&name##_site, sizeof(T) * (count)))

#define NDP_LAUNCH(kernel, grid, block, stream, ...) \
  ::ndp::emulated::launch((grid), (block), [=] { NDP_UNWRAP kernel(__VA_ARGS__); (void)(stream); })
#define NDP_UNWRAP(...) __VA_ARGS__

#define NDP_TEXT_(x) #x
#define NDP_TEXT(x) NDP_TEXT_(x)
#define __syncthreads() static_cast<void>(::ndp::emulated::barrier(__FILE__ ":" NDP_TEXT(__LINE__)))
#define __syncthreads_or(value) \
  static_cast<int>(::ndp::emulated::barrier(__FILE__ ":" NDP_TEXT(__LINE__), (value) != 0))
inline void __threadfence() {}

inline void __syncwarp(unsigned mask = 0xffffffffu) {
  int none = 0;
  ndp::emulated::trade(mask, &none, &none, sizeof none, ndp::emulated::lane());
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const int lane = ndp::emulated::lane();
  T result;
  ndp::emulated::trade(mask, &value, &result, sizeof value, (lane & ~(width - 1)) | (from & (width - 1)));
  return result;
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int lane = ndp::emulated::lane();
  const int in = (lane & (width - 1)) + static_cast<int>(by);
  T result;
  ndp::emulated::trade(mask, &value, &result, sizeof value, in < width ? lane + static_cast<int>(by) : lane);
  return result;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with) {
  T result;
  ndp::emulated::trade(mask, &value, &result, sizeof value, ndp::emulated::lane() ^ with);
  return result;
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  int all[32];
  ndp::emulated::gather(mask, &predicate, all, sizeof predicate);
  unsigned ballot = 0;
  for (int i = 0; i < 32; ++i) ballot |= (all[i] != 0 && (mask >> i & 1) ? 1u : 0u) << i;
  return ballot;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  unsigned all[32];
  ndp::emulated::gather(mask, &value, all, sizeof value);
  return *std::max_element(all, all + 32);
}
inline unsigned __activemask() { return 0xffffffffu; }

// One thread runs at a time, so a plain addition is atomic.
template <class T>
T atomicAdd(T* to, T x) {
  ndp::emulated::maybe_yield();
  const T before = *to;
  *to = before + x;
  return before;
}
template <class T>
T atomicMin(T* to, T x) {
  ndp::emulated::maybe_yield();
  const T before = *to;
  *to = std::min(before, x);
  return before;
}
template <class T>
T atomicMax(T* to, T x) {
  ndp::emulated::maybe_yield();
  const T before = *to;
  *to = std::max(before, x);
  return before;
}
template <class T>
T atomicOr(T* to, T x) {
  ndp::emulated::maybe_yield();
  const T before = *to;
  *to = before | x;
  return before;
}
template <class T>
T atomicExch(T* to, T x) {
  ndp::emulated::maybe_yield();
  const T before = *to;
  *to = x;
  return before;
}
template <class T>
T atomicCAS(T* to, T expected, T x) {
  ndp::emulated::maybe_yield();
  const T before = *to;
  if (before == expected) *to = x;
  return before;
}

inline long long __double2ll_rn(double x) { return std::llrint(x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dsqrt_rn(double x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline float __int_as_float(int x) { float y; std::memcpy(&y, &x, 4); return y; }
inline int __float_as_int(float x) { int y; std::memcpy(&y, &x, 4); return y; }
inline long long __double_as_longlong(double x) { long long y; std::memcpy(&y, &x, 8); return y; }
inline double __longlong_as_double(long long x) { double y; std::memcpy(&y, &x, 8); return y; }
