// A superaccumulator for products of two fp64 numbers: like superacc.hpp's, whose conventions it
// keeps, but reaching down to 2^-2148, the smallest product, and up to 2^2048.
#pragma once

#include "superacc.hpp"

namespace ndp {

// Digits below superacc.hpp's lowest, so that digit i + kProductBelow weighs what its digit i does.
constexpr int kProductBelow = 34;
constexpr int kProductLowest = kLowestExponent - 32 * kProductBelow;
// 2^2048 times 2^63 terms lies below 2^(134 * 32 - 2176).
constexpr int kProductDigits = 134;

struct ProductAcc {
  int64_t digit[kProductDigits];
  int64_t deposits;  // since the last carry
  Specials specials;
};

NDP_HD static inline void clear(ProductAcc& acc) { std::memset(&acc, 0, sizeof acc); }

NDP_HD static inline void carry(ProductAcc& acc) {
  int64_t over = 0;
  for (int i = 0; i + 1 < kProductDigits; ++i) {
    const int64_t value = acc.digit[i] + over;
    acc.digit[i] = value & 0xffffffff;
    over = value >> 32;
  }
  acc.digit[kProductDigits - 1] += over;
  acc.deposits = 0;
}

struct FactorBits {
  bool negative;
  int exponent;  // of the significand's last bit
  uint64_t significand;
};

// A finite x.
NDP_HD static inline FactorBits factor_bits(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int biased = static_cast<int>(bits >> 52) & 0x7ff;
  const uint64_t fraction = bits & 0xfffffffffffff;
  return {(bits >> 63) != 0, (biased == 0 ? 1 : biased) - 1075,
          biased == 0 ? fraction : fraction | 0x10000000000000};
}

// Adds x y exactly.
NDP_HD static inline void deposit_product(ProductAcc& acc, double x, double y) {
  // inf - inf and NaN - NaN are NaN; a finite number leaves zero.
  if (x - x != 0 || y - y != 0) {
    const double product = x * y;
    acc.specials.nan |= product != product;
    acc.specials.positive_infinity |= product == __builtin_inf();
    acc.specials.negative_infinity |= product == -__builtin_inf();
    return;
  }
  if (++acc.deposits > kDepositsBeforeCarry) carry(acc);
  const FactorBits left = factor_bits(x);
  const FactorBits right = factor_bits(y);
  unsigned __int128 magnitude =
      static_cast<unsigned __int128>(left.significand) * right.significand;
  const int position = left.exponent + right.exponent - kProductLowest;
  int64_t* digit = acc.digit + (position >> 5);
  const int shift = position & 31;
  const int64_t mask = left.negative != right.negative ? -1 : 0;
  // The low 32 - shift bits first, so that the shift cannot push bits out at the top.
  const uint64_t low = (static_cast<uint64_t>(magnitude) << shift) & 0xffffffff;
  *digit += (static_cast<int64_t>(low) ^ mask) - mask;
  for (magnitude >>= 32 - shift; magnitude != 0; magnitude >>= 32) {
    ++digit;
    *digit += (static_cast<int64_t>(static_cast<uint64_t>(magnitude) & 0xffffffff) ^ mask) - mask;
  }
}

// A number that every format rounds as it would `from`, which is left tidied: what lies below the
// digits of a Superacc is far below half of any unit and only leaves its trace in the lowest bit;
// what lies above them is an overflow in any format.
NDP_HD static inline void to_superacc(ProductAcc& from, Superacc& acc) {
  clear(acc);
  acc.specials = from.specials;
  carry(from);
  const bool negative = from.digit[kProductDigits - 1] < 0;
  if (negative) {
    for (int i = 0; i < kProductDigits; ++i) from.digit[i] = -from.digit[i];
    carry(from);
  }
  bool below = false;
  bool above = false;
  for (int i = 0; i < kProductBelow; ++i) below |= from.digit[i] != 0;
  for (int i = kProductBelow + kDigits; i < kProductDigits; ++i) above |= from.digit[i] != 0;
  for (int i = 0; i < kDigits; ++i) acc.digit[i] = from.digit[i + kProductBelow];
  acc.digit[0] |= below;
  if (negative)
    for (int i = 0; i < kDigits; ++i) acc.digit[i] = -acc.digit[i];
  acc.deposits = 1;
  // Beside an infinity or a NaN a finite sum counts for nothing, however large.
  if (above && !acc.specials.nan && !acc.specials.positive_infinity &&
      !acc.specials.negative_infinity) {
    acc.specials.positive_infinity = !negative;
    acc.specials.negative_infinity = negative;
  }
}

}  // namespace ndp
