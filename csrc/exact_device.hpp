// Exact sums on the device: error-free splits in registers, a fixed-point number for each warp in
// shared memory, and one for each result in global memory, to which integer atomics add in any
// order: the result is the same whatever the order.
#pragma once

#include "device.hpp"
#include "elements.hpp"
#include "superacc.hpp"

namespace ndp {

// What a sum holds beside its digits.
constexpr unsigned kNan = 1, kPositiveInfinity = 2, kNegativeInfinity = 4;
constexpr unsigned kNotNegativeZero = 8;  // an element that is not -0

// A Superacc on its way: other threads add to it.
struct ExactTotal {
  int64_t digit[kDigits];
  unsigned flags;
  unsigned arrived;
};

// Adds x to the digits. Many threads may do so at a time; at most 2^30 of such additions.
__device__ inline void deposit_shared(ExactTotal& total, double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const bool negative = bits >> 63;
  const int biased = static_cast<int>(bits >> 52) & 0x7ff;
  const uint64_t fraction = bits & 0xfffffffffffff;
  if (biased == 0x7ff) {
    atomicOr(&total.flags, fraction != 0 ? kNan : negative ? kNegativeInfinity : kPositiveInfinity);
    return;
  }
  if (biased == 0 && fraction == 0) return;
  // As in superacc.hpp: subnormals have the exponent of biased 1 and no hidden bit.
  const uint64_t significand = biased == 0 ? fraction : fraction | 0x10000000000000;
  const int position = (biased == 0 ? 0 : biased - 1) - 1074 - kLowestExponent;
  const int shift = position & 31;
  int64_t* digit = total.digit + (position >> 5);
  const uint64_t low = significand << shift;
  const uint64_t high = shift == 0 ? 0 : significand >> (64 - shift);
  const int64_t sign = negative ? -1 : 1;
  atomic_add(digit, sign * static_cast<int64_t>(low & 0xffffffff));
  atomic_add(digit + 1, sign * static_cast<int64_t>(low >> 32));
  if (high != 0) atomic_add(digit + 2, sign * static_cast<int64_t>(high));
}

// All threads of the block: empties what lies in shared memory.
__device__ inline void clear_shared(ExactTotal* totals, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count * kDigits; i += static_cast<int>(blockDim.x))
    totals[i / kDigits].digit[i % kDigits] = 0;
  if (static_cast<int>(threadIdx.x) < count) totals[threadIdx.x].flags = 0;
  __syncthreads();
}

// All threads of the block: adds what its warps have to a total, digit by digit. digit_of(warp, i)
// is below 2^62 (2^30 additions below 2^32), so it is cut in two first.
template <class DigitOf>
__device__ inline void add_digits(const DigitOf& digit_of, int warps, int digits, int64_t* total) {
  for (int i = static_cast<int>(threadIdx.x); i < digits; i += static_cast<int>(blockDim.x)) {
    int64_t low = 0, high = 0;
    for (int warp = 0; warp < warps; ++warp) {
      low += digit_of(warp, i) & 0xffffffff;
      high += digit_of(warp, i) >> 32;
    }
    if (low != 0) atomic_add(&total[i], low);
    if (high != 0) {
      // The highest digit has no neighbour above; it has room for 2^31 times what it can hold.
      if (i + 1 < digits)
        atomic_add(&total[i + 1], high);
      else
        atomic_add(&total[i], high * (int64_t{1} << 32));
    }
  }
}

// All threads of the block: adds what its warps have to the result's total.
__device__ inline void add_to_total(const ExactTotal* warps, int count, ExactTotal& total) {
  __syncthreads();
  add_digits([&](int warp, int i) { return warps[warp].digit[i]; }, count, kDigits, total.digit);
  if (threadIdx.x == 0) {
    unsigned flags = 0;
    for (int warp = 0; warp < count; ++warp) flags |= warps[warp].flags;
    if (flags != 0) atomicOr(&total.flags, flags);
  }
}

// One thread: the result's bits; divided by n for a mean.
__device__ inline uint64_t round_total(const ExactTotal& total, int64_t n, bool mean,
                                       const Format& format) {
  Superacc acc;
  for (int i = 0; i < kDigits; ++i) acc.digit[i] = total.digit[i];
  acc.deposits = 0;
  const unsigned flags = total.flags;
  acc.specials = {(flags & kNan) != 0, (flags & kPositiveInfinity) != 0,
                  (flags & kNegativeInfinity) != 0};
  const bool finite = (flags & (kNan | kPositiveInfinity | kNegativeInfinity)) == 0;
  const bool negative_zero = (flags & kNotNegativeZero) == 0 && n > 0;
  if (mean && finite) return round_quotient(acc, n, format, negative_zero);
  return round_to(acc, format, negative_zero);
}

// Of one thread: numbers added to an unevaluated sum high + low (Knuth's two-sums); what that does
// not hold goes to the total at once, the rest when the thread is done.
struct PairSum {
  double high, low;

  __device__ inline void add(double x, ExactTotal& total) {
    // Far from overflow, so that the two-sums are exact; infinities and NaNs are not below.
    if (!(x <= 0x1p960 && x >= -0x1p960)) {
      deposit_shared(total, x);
      return;
    }
    const double sum = high + x;
    const double part = sum - high;
    const double lost = (high - (sum - part)) + (x - part);
    high = sum;
    const double sum2 = low + lost;
    const double part2 = sum2 - low;
    const double rest = (low - (sum2 - part2)) + (lost - part2);
    low = sum2;
    if (rest != 0) deposit_shared(total, rest);
  }
  __device__ inline void done(ExactTotal& total) const {
    deposit_shared(total, high);
    deposit_shared(total, low);
  }
};

// Elements of one lane in a tile, and log2 of a whole warp's.
constexpr int kTileLane = 16;
constexpr int kTileBits = 9;
constexpr int64_t kTile = int64_t{kWarp} * kTileLane;

__device__ inline int exponent_of(double x) {  // |x| < 2^exponent_of(x), for a finite x
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int biased = static_cast<int>(bits >> 52) & 0x7ff;
  return biased == 0 ? -1022 : biased - 1022;
}

// A warp's tile, kTileLane elements in every lane: added exactly to the warp's own total. Part i of
// every element is its nearest multiple of unit i, taken and added up in one addition to a register
// that starts at 1.5 * 2^52 units (csrc/sum_isa.cpp says why nothing is lost). The largest exponent
// makes sure that the first register stays in its binade; a rest after the second part means that the
// tile spans too much, and its elements go in one by one.
__device__ inline void add_tile(const double (&x)[kTileLane], ExactTotal& total) {
  constexpr int kSpan = (52 - kTileBits) + 51 - kTileBits;
  double most = 0;
  bool odd = false;  // an infinity or a NaN
#pragma unroll
  for (int i = 0; i < kTileLane; ++i) {
    const double magnitude = x[i] < 0 ? -x[i] : x[i];
    most = magnitude > most ? magnitude : most;
    odd |= !(magnitude <= 0x1.fffffffffffffp1023);
  }
  int exponent = static_cast<int>(
      __reduce_max_sync(kAllLanes, static_cast<unsigned>(exponent_of(odd ? 0.0 : most) + 2048)));
  exponent -= 2048;
  if (exponent < kSpan - 1074) exponent = kSpan - 1074;
  bool bad = odd || exponent + kTileBits + 1 > 1022;
  double totals[2] = {0, 0};
  if (!bad) {
    const int unit[2] = {exponent + kTileBits - 51, exponent + kTileBits - 51 - (52 - kTileBits)};
    double start[2], sum[2];
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint64_t bits = static_cast<uint64_t>(unit[part] + 52 + 1023) << 52 | uint64_t{1} << 51;
      std::memcpy(&start[part], &bits, sizeof bits);
      sum[part] = start[part];
    }
    uint64_t left = 0;
#pragma unroll
    for (int i = 0; i < kTileLane; ++i) {
      double rest = x[i];
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const double next = sum[part] + rest;
        rest -= next - sum[part];
        sum[part] = next;
      }
      uint64_t bits;
      std::memcpy(&bits, &rest, sizeof bits);
      left |= bits & 0x7fffffffffffffff;
    }
    bad = left != 0;
    for (int part = 0; part < 2; ++part) totals[part] = sum[part] - start[part];
  }
  if (__any_sync(kAllLanes, bad)) {
    for (int i = 0; i < kTileLane; ++i) deposit_shared(total, x[i]);
    return;
  }
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2) {
#pragma unroll
    for (int part = 0; part < 2; ++part)
      totals[part] += __shfl_xor_sync(kAllLanes, totals[part], by);
  }
  // Two lanes, one for each part: integer additions, in any order.
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (lane < 2) deposit_shared(total, lane == 0 ? totals[0] : totals[1]);
}

}  // namespace ndp
