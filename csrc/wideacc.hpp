// A superaccumulator (superacc.hpp) of twice the range: it holds any sum of products of two fp64
// values, whose last bits reach down to 2^-2148.
#pragma once

#include "rounding.hpp"
#include "superacc.hpp"

namespace ndp {

// Twice the lowest exponent of Superacc, so that the square of one has this one's digits.
constexpr int kWideLowest = 2 * kLowestExponent;
// 2^2048 times 2^63 terms lies below 2^(136 * 32 - 2176).
constexpr int kWideDigits = 136;

struct WideAcc {
  int64_t digit[kWideDigits];
  int64_t deposits;  // since the last carry
  Specials specials;
};

NDP_HD static inline void clear(WideAcc& acc) { std::memset(&acc, 0, sizeof acc); }

NDP_HD static inline void carry(WideAcc& acc) {
  int64_t over = 0;
  for (int i = 0; i + 1 < kWideDigits; ++i) {
    const int64_t value = acc.digit[i] + over;
    acc.digit[i] = value & 0xffffffff;
    over = value >> 32;
  }
  acc.digit[kWideDigits - 1] += over;
  acc.deposits = 0;
}

// To be called before `count` deposits.
NDP_HD static inline void make_room(WideAcc& acc, int64_t count) {
  if (acc.deposits + count > kDepositsBeforeCarry) carry(acc);
  acc.deposits += count;
}

// Adds magnitude * 2^exponent with the sign given; exponent >= kWideLowest.
NDP_HD static inline void deposit_magnitude(WideAcc& acc, unsigned __int128 magnitude, int exponent,
                                            bool negative) {
  const int position = exponent - kWideLowest;
  int64_t* digit = acc.digit + (position >> 5);
  const int shift = position & 31;
  const int64_t mask = negative ? -1 : 0;
  const uint64_t low = (static_cast<uint64_t>(magnitude) << shift) & 0xffffffff;
  *digit += (static_cast<int64_t>(low) ^ mask) - mask;
  for (magnitude >>= 32 - shift; magnitude != 0; magnitude >>= 32) {
    ++digit;
    *digit += (static_cast<int64_t>(static_cast<uint64_t>(magnitude) & 0xffffffff) ^ mask) - mask;
  }
}

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

// Adds x exactly. The caller has made room.
NDP_HD static inline void deposit(WideAcc& acc, double x) {
  if (!is_finite(x)) return note_special(acc.specials, x);
  const Decoded of = decode(x);
  deposit_magnitude(acc, of.significand, of.exponent, of.negative);
}

// Adds a * b exactly. The caller has made room.
NDP_HD static inline void deposit_product(WideAcc& acc, double a, double b) {
  // The rounded product of an infinity or a NaN is the exact one.
  if (!is_finite(a) || !is_finite(b)) return note_special(acc.specials, a * b);
  const Decoded x = decode(a), y = decode(b);
  deposit_magnitude(acc, static_cast<unsigned __int128>(x.significand) * y.significand,
                    x.exponent + y.exponent, x.negative != y.negative);
}

// Adds `from`, which is left tidied.
NDP_HD static inline void merge(WideAcc& into, WideAcc& from) {
  carry(into);
  carry(from);
  for (int i = 0; i < kWideDigits; ++i) into.digit[i] += from.digit[i];
  into.deposits = 2;
  merge(into.specials, from.specials);
}

// Every digit into [0, 2^32), of the magnitude. Returns whether the number was negative.
template <class Accumulator>
NDP_HD static inline bool to_magnitude(Accumulator& acc) {
  constexpr int kCount = sizeof acc.digit / sizeof acc.digit[0];
  carry(acc);
  if (acc.digit[kCount - 1] >= 0) return false;
  for (int i = 0; i < kCount; ++i) acc.digit[i] = -acc.digit[i];
  carry(acc);
  return true;
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

// As for Superacc.
NDP_HD static inline uint64_t round_to(WideAcc& acc, const Format& format, bool negative_zero) {
  uint64_t bits;
  if (special(acc.specials, format, bits)) return bits;
  const bool negative = to_magnitude(acc);
  const Leading found = leading(acc.digit, kWideDigits, kWideLowest);
  return round_leading(found, found.bits == 0 ? negative_zero : negative, format);
}

// The square root of a sum that is not negative, rounded once.
NDP_HD static inline uint64_t root_to(WideAcc& acc, const Format& format) {
  uint64_t bits;
  if (special(acc.specials, format, bits)) return bits;
  carry(acc);
  return round_leading(square_root(leading(acc.digit, kWideDigits, kWideLowest)), false, format);
}

}  // namespace ndp
