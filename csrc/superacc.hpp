// A superaccumulator: a fixed-point number wide enough to hold any sum of fp64 values exactly, and
// its one rounding, to nearest even, straight to the format asked for.
//
// The number is the sum of digit[i] * 2^(32 i + kLowestExponent). A digit is a signed 64-bit
// integer, so additions leave their carries where they are; `carry` tidies up, at the latest after
// kDepositsBeforeCarry deposits, each of which changes a digit by less than 2^32.
//
// Plain functions of internal linkage: every ISA level compiles its own, and a CUDA file can
// include them as they are.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define NDP_HD __host__ __device__
#else
#define NDP_HD
#endif

namespace ndp {

// The lowest bit of digit 0. fp64 needs 2^-1074; the next multiple of 32 below leaves room for the
// grid of binned.hpp.
constexpr int kLowestExponent = -1088;
// 2^1024 (the end of fp64) times 2^63 terms lies below 2^(70 * 32 - 1088).
constexpr int kDigits = 70;
constexpr int64_t kDepositsBeforeCarry = int64_t{1} << 30;

// What no finite number can hold. Both infinities, or a NaN, make the sum NaN.
struct Specials {
  bool nan;
  bool positive_infinity;
  bool negative_infinity;
};

struct Superacc {
  int64_t digit[kDigits];
  int64_t deposits;  // since the last carry
  Specials specials;
};

// A binary interchange format, as far as rounding needs it.
struct Format {
  int precision;        // bits of the significand, the hidden one included
  int lowest_exponent;  // the smallest subnormal is 2^lowest_exponent
  uint64_t infinity;    // bit patterns
  uint64_t quiet_nan;
  uint64_t sign;
};

// Functions, because device code cannot refer to a constant of the host's.
NDP_HD constexpr Format format64() {
  return {53, -1074, 0x7ff0000000000000u, 0x7ff8000000000000u, 0x8000000000000000u};
}
NDP_HD constexpr Format format32() { return {24, -149, 0x7f800000u, 0x7fc00000u, 0x80000000u}; }
NDP_HD constexpr Format format_bf16() { return {8, -133, 0x7f80u, 0x7fc0u, 0x8000u}; }
NDP_HD constexpr Format format16() { return {11, -24, 0x7c00u, 0x7e00u, 0x8000u}; }

constexpr Format kFormat64 = format64();
constexpr Format kFormat32 = format32();
constexpr Format kFormatBf16 = format_bf16();
constexpr Format kFormat16 = format16();

// x is not 0.
NDP_HD static inline int leading_zeros(uint64_t x) {
#if defined(__CUDA_ARCH__)
  return __clzll(static_cast<long long>(x));
#else
  return __builtin_clzll(x);
#endif
}

NDP_HD static inline void clear(Superacc& acc) { std::memset(&acc, 0, sizeof acc); }

NDP_HD static inline void merge(Specials& into, const Specials& from) {
  into.nan |= from.nan;
  into.positive_infinity |= from.positive_infinity;
  into.negative_infinity |= from.negative_infinity;
}

// Every digit but the highest into [0, 2^32); the highest keeps the sign of the number.
NDP_HD static inline void carry(Superacc& acc) {
  int64_t over = 0;
  for (int i = 0; i + 1 < kDigits; ++i) {
    const int64_t value = acc.digit[i] + over;
    acc.digit[i] = value & 0xffffffff;
    over = value >> 32;
  }
  acc.digit[kDigits - 1] += over;
  acc.deposits = 0;
}

// To be called before `count` calls of deposit.
NDP_HD static inline void make_room(Superacc& acc, int64_t count) {
  if (acc.deposits + count > kDepositsBeforeCarry) carry(acc);
  acc.deposits += count;
}

// Adds the 128-bit magnitude, times 2^exponent, with the sign given.
// exponent >= kLowestExponent, and the product below 2^1152.
NDP_HD static inline void deposit_magnitude(Superacc& acc, unsigned __int128 magnitude,
                                            int exponent, bool negative) {
  const int position = exponent - kLowestExponent;
  int64_t* digit = acc.digit + (position >> 5);
  const int shift = position & 31;
  const int64_t mask = negative ? -1 : 0;
  // The low 32 - shift bits first, so that the shift cannot push bits out at the top.
  const uint64_t low = (static_cast<uint64_t>(magnitude) << shift) & 0xffffffff;
  *digit += (static_cast<int64_t>(low) ^ mask) - mask;
  for (magnitude >>= 32 - shift; magnitude != 0; magnitude >>= 32) {
    ++digit;
    *digit += (static_cast<int64_t>(static_cast<uint64_t>(magnitude) & 0xffffffff) ^ mask) - mask;
  }
}

// Adds x exactly. The caller has made room.
NDP_HD static inline void deposit(Superacc& acc, double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const bool negative = bits >> 63;
  const int biased = static_cast<int>(bits >> 52) & 0x7ff;
  const uint64_t fraction = bits & 0xfffffffffffff;
  if (biased == 0x7ff) {
    acc.specials.nan |= fraction != 0;
    acc.specials.positive_infinity |= fraction == 0 && !negative;
    acc.specials.negative_infinity |= fraction == 0 && negative;
    return;
  }
  // Subnormals have the exponent of biased 1 and no hidden bit.
  const uint64_t significand = biased == 0 ? fraction : fraction | 0x10000000000000;
  const int position = (biased == 0 ? 0 : biased - 1) - 1074 - kLowestExponent;
  const int shift = position & 31;
  const int64_t mask = -static_cast<int64_t>(negative);
  int64_t* digit = acc.digit + (position >> 5);
  const unsigned __int128 wide = static_cast<unsigned __int128>(significand) << shift;
  const uint64_t lower = static_cast<uint64_t>(wide);
  const uint64_t upper = static_cast<uint64_t>(wide >> 64);
  digit[0] += (static_cast<int64_t>(lower & 0xffffffff) ^ mask) - mask;
  digit[1] += (static_cast<int64_t>(lower >> 32) ^ mask) - mask;
  digit[2] += (static_cast<int64_t>(upper) ^ mask) - mask;
}

// Adds `from`, which is left tidied.
NDP_HD static inline void merge(Superacc& into, Superacc& from) {
  carry(into);
  carry(from);
  for (int i = 0; i < kDigits; ++i) into.digit[i] += from.digit[i];
  into.deposits = 2;
  merge(into.specials, from.specials);
}

// Tidied, and without its sign, which is returned: true for a negative number.
NDP_HD static inline bool take_sign(Superacc& acc) {
  carry(acc);
  const bool negative = acc.digit[kDigits - 1] < 0;
  if (negative) {
    for (int i = 0; i < kDigits; ++i) acc.digit[i] = -acc.digit[i];
    carry(acc);
  }
  return negative;
}

// The bit pattern, in `format`, of the number rounded once, to nearest, ties to even.
// NaN is always the positive quiet NaN with an empty payload. An exact zero is -0.0 only when the
// caller says so: the digits cannot know. rest: the magnitude is larger than the digits say, by
// less than 2^kLowestExponent.
NDP_HD static inline uint64_t round_to(Superacc& acc, const Format& format, bool negative_zero,
                                       bool rest = false) {
  const Specials& specials = acc.specials;
  if (specials.nan || (specials.positive_infinity && specials.negative_infinity))
    return format.quiet_nan;
  if (specials.positive_infinity) return format.infinity;
  if (specials.negative_infinity) return format.infinity | format.sign;

  const bool negative = take_sign(acc);
  int high = kDigits - 1;
  while (high >= 0 && acc.digit[high] == 0) --high;
  if (high < 0) return negative_zero ? format.sign : 0;

  // Bit positions count from kLowestExponent. `last` is the position of the result's lowest bit.
  const int top = 32 * high + 63 - leading_zeros(static_cast<uint64_t>(acc.digit[high]));
  const int floor = format.lowest_exponent - kLowestExponent;
  const int last = top - (format.precision - 1) > floor ? top - (format.precision - 1) : floor;

  // The significand lies in at most three digits from `last` on; those beyond the top are zero.
  const int first_digit = last >> 5;
  unsigned __int128 window = 0;
  for (int i = 2; i >= 0; --i) {
    const int at = first_digit + i;
    window = window << 32 | static_cast<uint64_t>(at < kDigits ? acc.digit[at] : 0);
  }
  const uint64_t significand = static_cast<uint64_t>(window >> (last & 31));
  bool half = false;
  bool sticky = rest;
  if (last > 0) {
    const int below = last - 1;
    const uint64_t digit = static_cast<uint64_t>(acc.digit[below >> 5]);
    half = digit >> (below & 31) & 1;
    sticky = (digit & ((uint64_t{1} << (below & 31)) - 1)) != 0;
    for (int i = 0; i < below >> 5 && !sticky; ++i) sticky = acc.digit[i] != 0;
  }
  // The hidden bit of a normal significand adds the 1 that its biased exponent has more than
  // last - floor; a subnormal has neither. Rounding up carries into the exponent by itself.
  uint64_t bits = (static_cast<uint64_t>(last - floor) << (format.precision - 1)) + significand;
  bits += half && (sticky || (significand & 1));
  if (bits > format.infinity) bits = format.infinity;
  return negative ? bits | format.sign : bits;
}

// The same of the number divided by n, 1 <= n < 2^63: one rounding of the exact quotient.
NDP_HD static inline uint64_t round_quotient(Superacc& acc, int64_t n, const Format& format,
                                             bool negative_zero) {
  const bool negative = take_sign(acc);
  const uint64_t divisor = static_cast<uint64_t>(n);
  int high = kDigits - 1;
  while (high > 0 && acc.digit[high] == 0) --high;
  uint64_t rest = 0;
  for (int i = high; i >= 0; --i) {
    const uint64_t digit = static_cast<uint64_t>(acc.digit[i]);
    if (divisor >> 32 == 0) {
      const uint64_t dividend = rest << 32 | digit;
      acc.digit[i] = static_cast<int64_t>(dividend / divisor);
      rest = dividend % divisor;
    } else {
      const unsigned __int128 dividend = static_cast<unsigned __int128>(rest) << 32 | digit;
      acc.digit[i] = static_cast<int64_t>(dividend / divisor);
      rest = static_cast<uint64_t>(dividend % divisor);
    }
  }
  // A quotient below all digits is rounded to a zero that keeps the sign.
  bool zero = true;
  for (int i = 0; i <= high; ++i) zero = zero && acc.digit[i] == 0;
  if (zero && rest != 0) negative_zero = negative;
  if (negative)
    for (int i = 0; i <= high; ++i) acc.digit[i] = -acc.digit[i];
  return round_to(acc, format, negative_zero, rest != 0);
}

// The bit pattern, in `format`, of x rounded once. Where the format is fp64, x itself, but for NaN.
NDP_HD static inline uint64_t round_double(double x, const Format& format) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint64_t magnitude = bits & 0x7fffffffffffffff;
  if (magnitude > kFormat64.infinity) return format.quiet_nan;
  if (format.precision == kFormat64.precision) return bits;
  const uint64_t sign = bits >> 63 ? format.sign : 0;
  if (magnitude == kFormat64.infinity) return sign | format.infinity;
  const int biased = static_cast<int>(magnitude >> 52);
  // The value is significand times 2^exponent. fp64's subnormals are below half of anything here.
  const uint64_t significand = (magnitude & 0xfffffffffffff) | uint64_t{biased != 0} << 52;
  const int exponent = biased - 1075;
  const int normal_last = exponent + 53 - format.precision;
  const int last = normal_last > format.lowest_exponent ? normal_last : format.lowest_exponent;
  const int shift = last - exponent;
  if (shift > 54) return sign;
  const uint64_t kept = significand >> shift;
  const uint64_t lost = significand & ((uint64_t{1} << shift) - 1);
  const uint64_t half = uint64_t{1} << (shift - 1);
  // As in round_to: the hidden bit adds its own 1 to the exponent.
  uint64_t result =
      (static_cast<uint64_t>(last - format.lowest_exponent) << (format.precision - 1)) + kept;
  result += lost > half || (lost == half && (kept & 1));
  return sign | (result > format.infinity ? format.infinity : result);
}

}  // namespace ndp
