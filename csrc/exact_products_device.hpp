// Exact sums of products on the device: a warp's tile of products, added without error to a total of
// its own (exact_device.hpp).
#pragma once

#include "device.hpp"
#include "elements.hpp"
#include "exact_device.hpp"
#include "product_sum.hpp"

namespace ndp {

// Products of the narrower formats are exact in fp64. Those of fp64 are when no bit of them leaves
// the range of fp64, as the sum of two parts; the others go to digits that reach as low as they do.
template <class T>
struct ProductTotal {
  ExactTotal near;
};
template <>
struct ProductTotal<double> {
  ExactTotal near;
  int64_t wide[kWideDigits];
};

// What of a WideAcc the digits of `near` are.
constexpr int kNearDigit = (kLowestExponent - kWideLowest) / 32;
static_assert(kNearDigit * 32 + kWideLowest == kLowestExponent);

// All threads of the block: empties what lies in shared memory.
template <class T>
__device__ inline void clear_products(ProductTotal<T>* totals, int count) {
  auto* const word = reinterpret_cast<int64_t*>(totals);
  static_assert(sizeof(ProductTotal<T>) % sizeof *word == 0);
  const int words = count * static_cast<int>(sizeof(ProductTotal<T>) / sizeof *word);
  for (int i = static_cast<int>(threadIdx.x); i < words; i += static_cast<int>(blockDim.x))
    word[i] = 0;
  __syncthreads();
}

// All threads of the block: adds what its warps have to a total in global memory.
template <class T>
__device__ inline void add_to_total(const ProductTotal<T>* warps, int count,
                                    ProductTotal<T>& total) {
  __syncthreads();
  add_digits([&](int warp, int i) { return warps[warp].near.digit[i]; }, count, kDigits,
             total.near.digit);
  if constexpr (sizeof(T) == sizeof(double))
    add_digits([&](int warp, int i) { return warps[warp].wide[i]; }, count, kWideDigits,
               total.wide);
  if (static_cast<int>(threadIdx.x) < count && warps[threadIdx.x].near.flags != 0)
    atomicOr(&total.near.flags, warps[threadIdx.x].near.flags);
}

// Whether the product of two elements is -0, and not a number too small to be shown.
template <class T>
__device__ inline bool is_negative_zero(T a, T b) {
  const uint64_t sign = format_of_element<T>().sign, x = bits_of(a), y = bits_of(b);
  return ((x ^ y) & sign) != 0 && ((x & ~sign) == 0 || (y & ~sign) == 0);
}

// 0, or between 2^-450 and 2^450: such factors have products that are a sum of two doubles.
__device__ inline bool is_moderate(double x) {
  const uint64_t least = uint64_t{1023 - 450} << 52, span = uint64_t{900} << 52;
  const uint64_t magnitude = bits_of(x) & 0x7fffffffffffffff;
  return magnitude - least <= span || magnitude == 0;
}

// Adds a * b exactly to the wide digits. Many threads may do so at a time.
__device__ inline void deposit_shared(ProductTotal<double>& total, double a, double b) {
  if (!is_finite(a) || !is_finite(b)) {
    const double product = a * b;
    atomicOr(&total.near.flags, product != product ? kNan
                                : product > 0      ? kPositiveInfinity
                                                   : kNegativeInfinity);
    return;
  }
  const Decoded x = decode(a), y = decode(b);
  unsigned __int128 magnitude = static_cast<unsigned __int128>(x.significand) * y.significand;
  const int position = x.exponent + y.exponent - kWideLowest;
  const int shift = position & 31;
  const int64_t sign = x.negative != y.negative ? -1 : 1;
  int64_t* digit = total.wide + (position >> 5);
  // The low 32 - shift bits first, so that the shift cannot push bits out at the top.
  const uint64_t low = (static_cast<uint64_t>(magnitude) << shift) & 0xffffffff;
  if (low != 0) atomic_add(digit, sign * static_cast<int64_t>(low));
  for (magnitude >>= 32 - shift; magnitude != 0; magnitude >>= 32)
    atomic_add(++digit,
               sign * static_cast<int64_t>(static_cast<uint64_t>(magnitude) & 0xffffffff));
}

// A warp's tile, kTileLane products in every lane; zeros where there are fewer.
template <class T>
__device__ inline void add_products(const T (&a)[kTileLane], const T (&b)[kTileLane],
                                    ProductTotal<T>& total) {
  double products[kTileLane];
  if constexpr (sizeof(T) < sizeof(double)) {
#pragma unroll
    for (int i = 0; i < kTileLane; ++i) products[i] = value_of(a[i]) * value_of(b[i]);
  } else {
    double rests[kTileLane];
#pragma unroll
    for (int i = 0; i < kTileLane; ++i) {
      const bool both = is_moderate(a[i]) && is_moderate(b[i]);
      if (!both) deposit_shared(total, a[i], b[i]);
      products[i] = both ? a[i] * b[i] : 0;
      // What the rounding took, without an error of its own.
      rests[i] = both ? __fma_rn(a[i], b[i], -products[i]) : 0;
    }
    add_tile(rests, total.near);
  }
  add_tile(products, total.near);
}

// One thread: the sum, with its infinities and NaNs.
template <class T>
__device__ inline void to_wide(const ProductTotal<T>& total, WideAcc& acc) {
  clear(acc);
  if constexpr (sizeof(T) == sizeof(double))
    for (int i = 0; i < kWideDigits; ++i) acc.digit[i] = total.wide[i];
  for (int i = 0; i < kDigits; ++i) {
    // Neither of the two is far below 2^63, but one half of it and the rest are.
    const int64_t digit = total.near.digit[i];
    acc.digit[kNearDigit + i] += digit & 0xffffffff;
    acc.digit[kNearDigit + i + 1] += digit >> 32;
  }
  const unsigned flags = total.near.flags;
  acc.specials = {(flags & kNan) != 0, (flags & kPositiveInfinity) != 0,
                  (flags & kNegativeInfinity) != 0};
}

}  // namespace ndp
