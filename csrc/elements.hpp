// Elements on the device: how each dtype is read, and what its sums are kept in.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "device.hpp"
#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

// Elements of 16 bits, told apart by type.
struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

// Partial: what ordered variants add in. kVector: elements in 16 bytes.
template <class T>
struct Element;
template <>
struct Element<double> {
  using Partial = double;
  static constexpr int bins = 3;
};
template <>
struct Element<float> {
  using Partial = float;
  static constexpr int bins = 2;
};
template <>
struct Element<Bfloat16> : Element<float> {};
template <>
struct Element<Float16> : Element<float> {};

template <class T>
constexpr int kVector = 16 / sizeof(T);

__device__ inline double partial_of(double x) { return x; }
__device__ inline float partial_of(float x) { return x; }
__device__ inline float partial_of(Bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}
__device__ inline float partial_of(Float16 x) {
#if defined(__CUDA_ARCH__)
  // Not cuda_fp16.h, which needs headers of CCCL beside it.
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
  return wide;
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t magnitude = x.bits & 0x7fff;
  // Re-biasing by a multiplication makes subnormals normal by itself; infinity and NaN need help.
  uint32_t bits = magnitude << 13;
  float scaled;
  std::memcpy(&scaled, &bits, sizeof scaled);
  scaled *= 0x1p112f;
  std::memcpy(&bits, &scaled, sizeof bits);
  bits |= (magnitude >= 0x7c00 ? 0x7f800000 : 0) | sign;
  std::memcpy(&scaled, &bits, sizeof scaled);
  return scaled;
#endif
}

// Exactly, for every dtype.
template <class T>
__device__ inline double value_of(T x) {
  return static_cast<double>(partial_of(x));
}

template <class T>
__device__ inline uint64_t bits_of(T x) {
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof x);  // little-endian, like all that is built for
  return bits;
}

template <class T>
NDP_HD constexpr Format format_of_element();
template <>
NDP_HD constexpr Format format_of_element<double>() {
  return format64();
}
template <>
NDP_HD constexpr Format format_of_element<float>() {
  return format32();
}
template <>
NDP_HD constexpr Format format_of_element<Bfloat16>() {
  return format_bf16();
}
template <>
NDP_HD constexpr Format format_of_element<Float16>() {
  return format16();
}

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The element with this bit pattern.
template <class T>
__device__ inline T element_of(uint64_t bits) {
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// kVector elements from an address that is a multiple of 16 bytes (aligned), or of the element's.
template <class T, bool aligned>
__device__ inline void read_vector(const T* from, T (&to)[kVector<T>]) {
  if (aligned) {
#if defined(__CUDA_ARCH__)
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
    std::memcpy(to, &words, 16);
#else
    std::memcpy(to, from, 16);
#endif
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) to[i] = from[i];
  }
}

// kVector elements to an address that is a multiple of 16 bytes.
template <class T>
__device__ inline void write_vector(const T (&from)[kVector<T>], T* to) {
#if defined(__CUDA_ARCH__)
  uint4 words;
  std::memcpy(&words, from, 16);
  *reinterpret_cast<uint4*>(to) = words;
#else
  std::memcpy(to, from, 16);
#endif
}

// A sum rounded to the element's type; NaN becomes the positive quiet one without payload.
template <class T>
__device__ inline T narrowed(typename Element<T>::Partial sum) {
  if (sum != sum) return element_of<T>(format_of_element<T>().quiet_nan);
  if constexpr (sizeof(T) == sizeof sum) {
    return sum;
  } else if constexpr (format_of_element<T>().precision == format_bf16().precision) {
    uint32_t bits;
    std::memcpy(&bits, &sum, sizeof bits);
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  } else {
#if defined(__CUDA_ARCH__)
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(sum));
    return {bits};
#else
    return element_of<T>(round_double(sum, format_of_element<T>()));
#endif
  }
}

// run(T{}) for the type of the dtype. Throws std::invalid_argument, in the name of `op`, for others.
template <class Run>
auto by_dtype(Dtype dtype, const char* op, const Run& run) {
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
      throw std::invalid_argument(std::string(op) +
                                  " takes float64, float32, bfloat16 and float16");
  }
}

}  // namespace ndp
