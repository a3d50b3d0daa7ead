// Superaccumulators: fixed-point numbers wide enough to hold any sum of fp64 values, or of products
// of two, exactly, and their one rounding, to nearest even, straight to the format asked for.
//
// The number is the sum of digit[i] * 2^(32 i + lowest). A digit is a signed 64-bit integer, so
// additions leave their carries where they are; `carry` tidies up, at the latest after
// kDepositsBeforeCarry deposits, each of which changes a digit by less than 2^32.
//
// Plain functions of internal linkage, as in rounding.hpp.
#pragma once

#include "rounding.hpp"

namespace ndp {

constexpr int64_t kDepositsBeforeCarry = int64_t{1} << 30;

// What no finite number can hold. Both infinities, or a NaN, make the sum NaN.
struct Specials {
  bool nan;
  bool positive_infinity;
  bool negative_infinity;
};

template <int kCount, int kLowest>
struct Accumulator {
  int64_t digit[kCount];
  int64_t deposits;  // since the last carry
  Specials specials;
};

// For fp64: 2^-1074 is its lowest bit; the next multiple of 32 below leaves room for the grid of
// binned.hpp. 2^1024 (the end of fp64) times 2^63 terms lies below 2^(70 * 32 - 1088).
constexpr int kLowestExponent = -1088;
constexpr int kDigits = 70;
using Superacc = Accumulator<kDigits, kLowestExponent>;

// For products of two fp64, whose last bits reach down to 2^-2148: twice the lowest exponent, so
// that the square of a Superacc has this one's digits. 2^2048 times 2^63 terms lies below
// 2^(136 * 32 - 2176).
constexpr int kWideLowest = 2 * kLowestExponent;
constexpr int kWideDigits = 136;
using WideAcc = Accumulator<kWideDigits, kWideLowest>;

template <int kCount, int kLowest>
NDP_HD static inline void clear(Accumulator<kCount, kLowest>& acc) {
  std::memset(&acc, 0, sizeof acc);
}

NDP_HD static inline void merge(Specials& into, const Specials& from) {
  into.nan |= from.nan;
  into.positive_infinity |= from.positive_infinity;
  into.negative_infinity |= from.negative_infinity;
}

// Every digit but the highest into [0, 2^32); the highest keeps the sign of the number.
template <int kCount, int kLowest>
NDP_HD static inline void carry(Accumulator<kCount, kLowest>& acc) {
  int64_t over = 0;
  for (int i = 0; i + 1 < kCount; ++i) {
    const int64_t value = acc.digit[i] + over;
    acc.digit[i] = value & 0xffffffff;
    over = value >> 32;
  }
  acc.digit[kCount - 1] += over;
  acc.deposits = 0;
}

// To be called before `count` calls of deposit.
template <int kCount, int kLowest>
NDP_HD static inline void make_room(Accumulator<kCount, kLowest>& acc, int64_t count) {
  if (acc.deposits + count > kDepositsBeforeCarry) carry(acc);
  acc.deposits += count;
}

// Adds the 128-bit magnitude, times 2^exponent, with the sign given.
// exponent >= kLowest, and the product below 2^(32 kCount + kLowest).
template <int kCount, int kLowest>
NDP_HD static inline void deposit_magnitude(Accumulator<kCount, kLowest>& acc,
                                            unsigned __int128 magnitude, int exponent,
                                            bool negative) {
  const int position = exponent - kLowest;
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
template <int kCount, int kLowest>
NDP_HD static inline void deposit(Accumulator<kCount, kLowest>& acc, double x) {
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
  const int position = (biased == 0 ? 0 : biased - 1) - 1074 - kLowest;
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
template <int kCount, int kLowest>
NDP_HD static inline void merge(Accumulator<kCount, kLowest>& into,
                                Accumulator<kCount, kLowest>& from) {
  carry(into);
  carry(from);
  for (int i = 0; i < kCount; ++i) into.digit[i] += from.digit[i];
  into.deposits = 2;
  merge(into.specials, from.specials);
}

// Tidied, and without its sign, which is returned: true for a negative number.
template <int kCount, int kLowest>
NDP_HD static inline bool take_sign(Accumulator<kCount, kLowest>& acc) {
  carry(acc);
  const bool negative = acc.digit[kCount - 1] < 0;
  if (negative) {
    for (int i = 0; i < kCount; ++i) acc.digit[i] = -acc.digit[i];
    carry(acc);
  }
  return negative;
}

// Whether the sum is no finite number; then `bits` is its pattern.
NDP_HD static inline bool special(const Specials& specials, const Format& format, uint64_t& bits) {
  if (specials.nan || (specials.positive_infinity && specials.negative_infinity))
    bits = format.quiet_nan;
  else if (specials.positive_infinity)
    bits = format.infinity;
  else if (specials.negative_infinity)
    bits = format.infinity | format.sign;
  else
    return false;
  return true;
}

// The magnitude of the number, whose sign is taken, from its highest bit on.
template <int kCount, int kLowest>
NDP_HD static inline Leading leading(const Accumulator<kCount, kLowest>& acc) {
  return leading(acc.digit, kCount, kLowest);
}

// The bit pattern, in `format`, of the number rounded once, to nearest, ties to even.
// NaN is always the positive quiet NaN with an empty payload. An exact zero is -0.0 only when the
// caller says so: the digits cannot know.
template <int kCount, int kLowest>
NDP_HD static inline uint64_t round_to(Accumulator<kCount, kLowest>& acc, const Format& format,
                                       bool negative_zero) {
  uint64_t bits;
  if (special(acc.specials, format, bits)) return bits;
  const bool negative = take_sign(acc);
  const Leading found = leading(acc);
  return round_leading(found, found.bits == 0 ? negative_zero : negative, format);
}

// The same of the number divided by n, 1 <= n < 2^63: one rounding of the exact quotient.
template <int kCount, int kLowest>
NDP_HD static inline uint64_t round_quotient(Accumulator<kCount, kLowest>& acc, int64_t n,
                                             const Format& format, bool negative_zero) {
  uint64_t bits;
  if (special(acc.specials, format, bits)) return bits;
  const bool negative = take_sign(acc);
  const Leading found = quotient(leading(acc), static_cast<uint64_t>(n));
  return round_leading(found, found.bits == 0 ? negative_zero : negative, format);
}

// The square root of a sum that is not negative, rounded once.
template <int kCount, int kLowest>
NDP_HD static inline uint64_t root_to(Accumulator<kCount, kLowest>& acc, const Format& format) {
  uint64_t bits;
  if (special(acc.specials, format, bits)) return bits;
  carry(acc);
  return round_leading(square_root(leading(acc)), false, format);
}

// ---- products

// A finite fp64 value: +-significand * 2^exponent.
struct Decoded {
  uint64_t significand;
  int exponent;
  bool negative;
};

NDP_HD static inline bool is_finite(double x) { return x - x == 0; }

NDP_HD static inline Decoded decode(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int biased = static_cast<int>(bits >> 52) & 0x7ff;
  const uint64_t fraction = bits & 0xfffffffffffff;
  // Subnormals have the exponent of biased 1 and no hidden bit.
  if (biased == 0) return {fraction, -1074, (bits >> 63) != 0};
  return {fraction | 0x10000000000000, biased - 1075, (bits >> 63) != 0};
}

NDP_HD static inline void note_special(Specials& specials, double x) {
  specials.nan |= x != x;
  specials.positive_infinity |= x > 0;
  specials.negative_infinity |= x < 0;
}

// Adds a * b exactly. The caller has made room.
NDP_HD static inline void deposit_product(WideAcc& acc, double a, double b) {
  // The rounded product of an infinity or a NaN is the exact one.
  if (!is_finite(a) || !is_finite(b)) return note_special(acc.specials, a * b);
  const Decoded x = decode(a), y = decode(b);
  deposit_magnitude(acc, static_cast<unsigned __int128>(x.significand) * y.significand,
                    x.exponent + y.exponent, x.negative != y.negative);
}

}  // namespace ndp
