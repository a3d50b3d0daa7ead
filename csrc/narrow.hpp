// The exact sum of two fp64 numbers, rounded once, to nearest even, to a format of at most 53 bits.
// Bit patterns as in superacc.hpp's round_to; needs the default rounding mode.
#pragma once

#include <cstdint>
#include <cstring>

#include "superacc.hpp"

namespace ndp {

// high + low, for a finite sum of two numbers whose result does not overflow in fp64.
NDP_HD static inline uint64_t round_pair(double high, double low, const Format& format) {
  if (low == 0.0) return round_double(high, format);
  const double sum = high + low;
  if (format.precision == 53) return round_double(sum, format);
  // Rounded to odd first: of the two fp64 neighbours the odd one. It keeps on which side of every
  // narrower tie the sum lies, so that the second rounding is as good as the only one.
  const double part = sum - high;
  const double rest = (high - (sum - part)) + (low - part);
  uint64_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  if (rest != 0.0 && (bits & 1) == 0) bits += (rest > 0.0) == (sum > 0.0) ? 1 : -1;
  double odd;
  std::memcpy(&odd, &bits, sizeof odd);
  return round_double(odd, format);
}

}  // namespace ndp
