// fp64 numbers on their way to narrower formats, and back. Needs the default rounding mode.
#pragma once

#include <cstdint>
#include <cstring>

#include "superacc.hpp"

namespace ndp {

// An element of a format of 16 bits, exactly.
NDP_HD static inline double widened(uint16_t bits, const Format& format) {
  const int fraction_bits = format.precision - 1;
  const uint64_t magnitude = bits & (format.sign - 1);
  const double sign = bits & format.sign ? -1.0 : 1.0;
  if (magnitude >= format.infinity)
    return magnitude == format.infinity ? sign * __builtin_inf() : __builtin_nan("");
  const uint64_t biased = magnitude >> fraction_bits;
  const uint64_t fraction = magnitude & ((uint64_t{1} << fraction_bits) - 1);
  const uint64_t significand = biased == 0 ? fraction : fraction | uint64_t{1} << fraction_bits;
  const int exponent = format.lowest_exponent + static_cast<int>(biased == 0 ? 0 : biased - 1);
  return sign * __builtin_ldexp(static_cast<double>(significand), exponent);
}

// high + low rounded to odd: of the two fp64 neighbours of a sum that is none the odd one. It keeps on
// which side of every narrower tie the sum lies, so that a second rounding, to at most 51 bits, is
// as good as the only one.
NDP_HD static inline double add_to_odd(double high, double low) {
  const double sum = high + low;
  const double part = sum - high;
  const double rest = (high - (sum - part)) + (low - part);
  uint64_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  if (rest != 0.0 && (bits & 1) == 0) bits += (rest > 0.0) == (sum > 0.0) ? 1 : -1;
  double odd;
  std::memcpy(&odd, &bits, sizeof odd);
  return odd;
}

// high + low, rounded once, for a finite sum of two numbers.
NDP_HD static inline uint64_t round_pair(double high, double low, const Format& format) {
  if (low == 0.0) return round_double(high, format);
  return round_double(format.precision == 53 ? high + low : add_to_odd(high, low), format);
}

}  // namespace ndp
