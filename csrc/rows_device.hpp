// What the row-wise kernels share on the device: a row held by a block, its sums in the fixed_order
// format (docs/ops.md), and elements written back.
//
// A row is the work of a block. Memory is read once: a thread keeps its elements in registers, all
// loads of a stage on their way together; a row longer than a stage is read again, out of L2. A
// format's lane is a chain of additions, 64 for a chunk of 4096, so that one warp with two lanes a
// thread is done with them (from shared memory, 4 cycles an addition) long before the memory is with
// the next rows: several blocks share a processor.
#pragma once

#include <stdexcept>
#include <type_traits>

#include "elements.hpp"
#include "sum.hpp"

namespace ndp {

// Blocks for rows that fit a stage of one warp, and for all others.
constexpr int kShortRow = 32;
constexpr int kLongRow = 128;

__host__ __device__ inline int64_t parts_of(int64_t n, int64_t part) {
  return (n + part - 1) / part;
}

// NaN becomes the positive quiet NaN.
__device__ inline float tidied(float x) {
  if (x == x) return x;
  return element_of<float>(format32().quiet_nan);
}
__device__ inline double tidied(double x) {
  if (x == x) return x;
  return element_of<double>(format64().quiet_nan);
}

// Rounded to nearest even, once.
template <class T>
__device__ inline T rounded_to(typename Element<T>::Partial x);
template <>
__device__ inline double rounded_to<double>(double x) {
  return tidied(x);
}
template <>
__device__ inline float rounded_to<float>(float x) {
  return tidied(x);
}
template <>
__device__ inline Bfloat16 rounded_to<Bfloat16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return {static_cast<uint16_t>(x == x ? rounded : 0x7fc0)};
}
template <>
__device__ inline Float16 rounded_to<Float16>(float x) {
#if defined(__CUDA_ARCH__)
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return {static_cast<uint16_t>(x == x ? bits : 0x7e00)};
#else
  return element_of<Float16>(round_double(x, format16()));
#endif
}

// kVector elements of which `count` are there; the others are zeros.
template <class T>
__device__ inline void read_some(const T* from, int count, bool aligned, T (&to)[kVector<T>]) {
  if (aligned && count == kVector<T>) {
    read_vector<T, true>(from, to);
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) to[i] = i < count ? from[i] : T{};
  }
}
// A row of parameters that may be missing.
template <class T>
__device__ inline void read_parameter(const T* row, int64_t at, int count, bool aligned,
                                      typename Element<T>::Partial missing,
                                      typename Element<T>::Partial (&to)[kVector<T>]) {
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) to[i] = missing;
  if (row == nullptr) return;
  T read[kVector<T>];
  read_some(row + at, count, aligned, read);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) to[i] = partial_of(read[i]);
}
template <class T>
__device__ inline void write_some(T* to, int count, bool aligned, const T (&from)[kVector<T>]) {
  if (aligned && count == kVector<T>) {
#if defined(__CUDA_ARCH__)
    uint4 words;
    std::memcpy(&words, from, 16);
    *reinterpret_cast<uint4*>(to) = words;
#else
    std::memcpy(to, from, 16);
#endif
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i)
      if (i < count) to[i] = from[i];
  }
}

// Whether rows of `columns` elements at these addresses (null ones aside) are read in vectors.
template <class T, class... Pointers>
bool aligned_rows(int64_t columns, const Pointers*... rows) {
  return columns % kVector<T> == 0 && ((reinterpret_cast<uintptr_t>(rows) % 16 == 0) && ...);
}

// A part of a row, in the registers of a block's threads.
template <class T, int kThreads>
struct Stage {
  static constexpr int kSteps = (sizeof(T) == 8 ? 16 : 32) / kVector<T>;
  static constexpr int kElements = kThreads * kSteps * kVector<T>;
  static_assert(kElements % kSumLanes == 0 && kSumChunk % kElements == 0);

  T held[kSteps][kVector<T>];

  // body(step, at, count): held[step] are the elements at .. at + count - 1 of the row of n.
  template <class Body>
  static __device__ inline void each(int64_t start, int64_t n, const Body& body) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int64_t at =
          start + (step * kThreads + static_cast<int>(threadIdx.x)) * kVector<T>;
      if (at < n) body(step, at, static_cast<int>(n - at < kVector<T> ? n - at : kVector<T>));
    }
  }
  __device__ inline void read(const T* row, int64_t start, int64_t n, bool aligned) {
    each(start, n, [&](int step, int64_t at, int count) {
      read_some(row + at, count, aligned, held[step]);
    });
  }
  // A row of one stage is read once, before the first use.
  __device__ inline void read_first(const T* row, int64_t n, bool aligned) {
    if (n <= kElements) read(row, 0, n, aligned);
  }
  __device__ inline void read_again(const T* row, int64_t start, int64_t n, bool aligned) {
    if (n > kElements) read(row, start, n, aligned);
  }
};

// Sums of 2^i chunks each, the largest first: a binary counter.
constexpr int kPending = 64;

// Of shared memory, in Partials, for row_sums.
template <class T, int kThreads, int kSums>
constexpr int kSumRoom = kSums * (Stage<T, kThreads>::kElements + kPending);

// kSums sums of n > 0 terms each at once, in the fixed_order format, for all threads of the block.
// fill(start, terms): the threads write term start + i of sum s to terms[s * kElements + i], for a
// stage or what is left of the row.
template <class T, int kThreads, int kSums, class Fill>
__device__ inline void row_sums(int64_t n, typename Element<T>::Partial* room,
                                typename Element<T>::Partial (&sums)[kSums], const Fill& fill) {
  using Partial = typename Element<T>::Partial;
  constexpr int kElements = Stage<T, kThreads>::kElements;
  constexpr int kOf = kThreads / kWarp;
  constexpr int kMine = (kSums + kOf - 1) / kOf;
  Partial* const pending = room + kSums * kElements;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Partial low[kMine], high[kMine];  // lanes `lane` and `lane + 32`
#pragma unroll
  for (int mine = 0; mine < kMine; ++mine) low[mine] = high[mine] = -Partial{0};
  int waiting = 0;
  int64_t chunk = 0;
  for (int64_t start = 0; start < n; start += kElements) {
    const int count = static_cast<int>(n - start < kElements ? n - start : kElements);
    const bool ends = (start + kElements) % kSumChunk == 0 || start + kElements >= n;
    int after = waiting + 1;  // pending sums, this chunk's included
    for (int64_t done = chunk; done & 1; done >>= 1) --after;
    __syncthreads();  // what lay here before has been read
    fill(start, room);
    __syncthreads();
#pragma unroll
    for (int mine = 0; mine < kMine; ++mine) {
      const int which = mine * kOf + warp;
      if (which >= kSums) break;
      const Partial* const terms = room + which * kElements;
      int i = lane;
#pragma unroll 8
      for (; i + kWarp < count; i += kSumLanes) {
        low[mine] += terms[i];
        high[mine] += terms[i + kWarp];
      }
      if (i < count) low[mine] += terms[i];
      if (!ends) continue;
      Partial sum = low[mine] + high[mine];
      low[mine] = high[mine] = -Partial{0};
#pragma unroll
      for (int by = kWarp / 2; by > 0; by /= 2)
        sum += __shfl_down_sync(kAllLanes, sum, static_cast<unsigned>(by));
      if (lane != 0) continue;
      Partial* const of = pending + which * kPending;
      for (int at = waiting; at >= after; --at) sum = of[at - 1] + sum;
      of[after - 1] = sum;
    }
    if (ends) {
      waiting = after;
      ++chunk;
    }
  }
#pragma unroll
  for (int mine = 0; mine < kMine; ++mine) {
    const int which = mine * kOf + warp;
    if (which >= kSums || lane != 0) break;
    Partial* const of = pending + which * kPending;
    for (int at = waiting - 1; at > 0; --at) of[at - 1] += of[at];
  }
  __syncthreads();
#pragma unroll
  for (int s = 0; s < kSums; ++s) sums[s] = pending[s * kPending];
}

// ---- sums over rows: parts[part, column], and their sums in rounds of neighbours

constexpr int kFoldThreads = 128;
constexpr int kFoldParts = 64;

// A power of two of neighbours at a time leaves the tree over all of them what it is, and so does -0
// for a neighbour that is missing.
template <class Partial>
__device__ inline Partial neighbours(const Partial* parts, int64_t first, int64_t count,
                                     int64_t width) {
  constexpr int kAtOnce = 8;
  Partial sums[kFoldParts / kAtOnce];
#pragma unroll
  for (int k = 0; k < kFoldParts / kAtOnce; ++k) {
    Partial of[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t at = first + k * kAtOnce + i;
      of[i] = at < count ? parts[at * width] : -Partial{0};
    }
    sums[k] = ((of[0] + of[1]) + (of[2] + of[3])) + ((of[4] + of[5]) + (of[6] + of[7]));
  }
  static_assert(kAtOnce == 8 && kFoldParts == 64);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template <class Partial>
__global__ void __launch_bounds__(kFoldThreads)
    fold_parts(const Partial* parts, int64_t count, int64_t width, Partial* folded) {
  const int64_t groups = parts_of(count, kFoldParts);
  for (int64_t work = int64_t{blockIdx.x} * kFoldThreads + threadIdx.x; work < groups * width;
       work += int64_t{gridDim.x} * kFoldThreads)
    folded[work] = neighbours(parts + work % width, work / width * kFoldParts, count, width);
}

template <class Partial>
__global__ void __launch_bounds__(kFoldThreads) start_sums(Partial* sums, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * kFoldThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * kFoldThreads)
    sums[i] = -Partial{0};
}

// Of a launch: `works` blocks' work on at most so many blocks.
inline unsigned grid_of(int64_t works, int64_t most_blocks) {
  const int64_t blocks = works < most_blocks ? works : most_blocks;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks);
}

// Partials that folding `count` > 0 parts needs, the parts included.
inline int64_t fold_room(int64_t count, int64_t width) {
  return (count + parts_of(count, kFoldParts)) * width;
}

// Folds parts[count, width], which have fold_room: returns where the `width` sums are.
template <class Partial>
const Partial* fold_all(Partial* parts, int64_t count, int64_t width, int most_blocks,
                        Stream stream) {
  Partial* folded = parts + count * width;
  while (count > 1) {
    const int64_t groups = parts_of(count, kFoldParts);
    NDP_LAUNCH((fold_parts<Partial>), grid_of(parts_of(groups * width, kFoldThreads), most_blocks),
               kFoldThreads, stream, parts, count, width, folded);
    Partial* const other = parts;
    parts = folded;
    folded = other;
    count = groups;
  }
  return parts;
}

// run(T{}) of the dtype's elements. Throws std::invalid_argument for a dtype without rows.
template <class Run>
void by_row_dtype(Dtype dtype, const Run& run) {
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
      throw std::invalid_argument("rows are float64, float32, bfloat16 or float16");
  }
}

// run(integral_constant of the threads that a row of so many columns gets).
template <class T, class Run>
void by_row_length(int64_t columns, const Run& run) {
  if (columns <= Stage<T, kShortRow>::kElements)
    run(std::integral_constant<int, kShortRow>{});
  else
    run(std::integral_constant<int, kLongRow>{});
}

}  // namespace ndp
