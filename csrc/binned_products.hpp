// Binned sums (binned.hpp) of products of two elements, each first rounded to 53 bits as if the
// exponent had no bounds.
//
// Plain functions of internal linkage, as in superacc.hpp.
#pragma once

#include "binned.hpp"
#include "product_sum.hpp"

namespace ndp {

// The lowest top bins of binned products, where no bit is lost: three bins below that of fp64 end at
// 2^-2160 < 2^-2148, two below that of the narrower formats at 2^-400 < 2^-298.
constexpr int kLowestProductTop64 = -52;
constexpr int kLowestProductTop32 = -9;

// Where fp64 can scale the bins, and a product that fp64 has rounded is a product that counts: below
// 2^-1022, where products are subnormal, nothing reaches the lowest bin.
constexpr int kLowestQuickTop = -22, kHighestQuickTop = 25;

// To the nearest multiple of 2^places, ties to even, in units of it. |x| < 2^62, places > 0.
NDP_HD static inline int64_t nearest(int64_t x, int places) {
  if (places > 62) return 0;
  const int64_t whole = x >> places;
  const int64_t rest = x & ((int64_t{1} << places) - 1);
  const int64_t half = int64_t{1} << (places - 1);
  return whole + (rest > half || (rest == half && (whole & 1)));
}

// The slices of one product, in integers.
NDP_HD static inline void bin_product(double a, double b, int bins, Binned& sum) {
  if (!is_finite(a) || !is_finite(b)) return note_special(sum.specials, a * b);
  const Decoded x = decode(a), y = decode(b);
  const unsigned __int128 product = static_cast<unsigned __int128>(x.significand) * y.significand;
  if (product == 0) return;
  int exponent = x.exponent + y.exponent;
  const int length = 128 - leading_zeros(product);
  const int places = length > 53 ? length - 53 : 0;
  uint64_t rounded = static_cast<uint64_t>(product >> places);
  if (places > 0) {
    const unsigned __int128 one = 1, rest = product & ((one << places) - 1);
    const unsigned __int128 half = one << (places - 1);
    rounded += rest > half || (rest == half && (rounded & 1));
  }
  exponent += places;
  int64_t left = static_cast<int64_t>(rounded);
  raise_top(sum, unbounded_top_bin(exponent + 64 - leading_zeros(rounded)));
  if (x.negative != y.negative) left = -left;
  for (int i = 0; i < bins && left != 0; ++i) {
    const int shift = kBinBits * (sum.top - i) - exponent;
    if (shift <= 0) {
      sum.bin[i] += static_cast<__int128>(left) << -shift;
      left = 0;
    } else {
      const int64_t slice = nearest(left, shift);
      sum.bin[i] += slice;
      if (slice != 0) left -= slice << shift;
    }
  }
}

// The value of the bins, for rounding.
NDP_HD static inline void to_wide(const Binned& sum, int bins, WideAcc& acc) {
  clear(acc);
  acc.specials = sum.specials;
  make_room(acc, bins);
  for (int i = 0; i < bins; ++i) {
    const bool negative = sum.bin[i] < 0;
    const unsigned __int128 bin = static_cast<unsigned __int128>(sum.bin[i]);
    deposit_magnitude(acc, negative ? -bin : bin, kBinBits * (sum.top - i), negative);
  }
}

}  // namespace ndp
