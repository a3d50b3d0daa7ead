// From exact sums of a row, S1 of its elements and S2 of their squares, to its mean S1/n and its
// variance (n S2 - S1^2) / (n (n - correction)), each rounded once.
//
// Plain functions of internal linkage, as in superacc.hpp.
#pragma once

#include "var.hpp"

namespace ndp {

// What n S2 - S1^2 >= 0 divided by max(0, n - correction) is where the latter is 0: as in torch.
NDP_HD static inline uint64_t without_freedom(bool deviates, const Format& format) {
  return deviates ? format.infinity : format.quiet_nan;
}

// x is not 0.
NDP_HD static inline int trailing_zeros(uint64_t x) { return 63 - leading_zeros(x & (~x + 1)); }

NDP_HD static inline int bit_length(unsigned __int128 x) { return 128 - leading_zeros(x); }

// Of sums in 128-bit integers. False where the difference, or n (n - correction), needs more.
NDP_HD static inline bool finish(const QuickMoments& of, int64_t n, int64_t correction,
                                 const Format& format, uint64_t& var, uint64_t& mean) {
  const bool negative = of.sum < 0;
  unsigned __int128 sum = static_cast<unsigned __int128>(of.sum);
  if (negative) sum = -sum;
  const Leading first{sum, of.sum_unit, false};
  int square_unit = 0;
  unsigned __int128 square = 0;
  if (sum != 0) {
    const uint64_t low = static_cast<uint64_t>(sum);
    const int zeros = low != 0 ? trailing_zeros(low)
                               : 64 + trailing_zeros(static_cast<uint64_t>(sum >> 64));
    sum >>= zeros;
    if (bit_length(sum) > 63) return false;
    square = sum * sum;
    square_unit = 2 * (of.sum_unit + zeros);
  }
  const unsigned __int128 squares = static_cast<unsigned __int128>(of.squares);
  if (bit_length(squares) + bit_length(static_cast<uint64_t>(n)) > 127) return false;
  unsigned __int128 difference = squares * static_cast<uint64_t>(n);
  int unit = of.squares_unit;
  if (square != 0) {
    const int apart = square_unit - of.squares_unit;
    // S1^2 <= n S2 in the same unit, so that the other one tells whether either fits.
    if (apart < 0) {
      if (bit_length(difference) - apart > 127) return false;
      difference <<= -apart;
      unit = square_unit;
    } else {
      square <<= apart;
    }
    difference -= square;
  }
  // n > 0, so that n - correction below 2^64 does not depend on correction's sign.
  uint64_t divisor = 0;
  if (n > correction) {
    divisor = static_cast<uint64_t>(n) - static_cast<uint64_t>(correction);
    if (divisor > ~uint64_t{0} / static_cast<uint64_t>(n)) return false;
    divisor *= static_cast<uint64_t>(n);
  }
  mean = round_leading(quotient(first, static_cast<uint64_t>(n)), negative, format);
  var = divisor == 0
            ? without_freedom(difference != 0, format)
            : round_leading(quotient({difference, unit, false}, divisor),
                            false, format);
  return true;
}

// Digits [kFirstSumDigit, kWideDigits) of S1 in a WideAcc count from 2^kLowestExponent, so that the
// product of its digits i and j of those is one at i + j of S2.
constexpr int kFirstSumDigit = (kLowestExponent - kWideLowest) / 32;
static_assert(kFirstSumDigit * 32 + kWideLowest == kLowestExponent);
// n S2 needs two digits more than S2. Those below are for the bits of the quotient: dividing takes
// away at most 126 of them.
constexpr int kBelow = 8;
constexpr int kMomentDigits = kBelow + kWideDigits + 2;
constexpr int kMomentLowest = kWideLowest - 32 * kBelow;

// Digits divided by the positive d, from the top down. Returns whether there was a rest.
NDP_HD static inline bool divide(int64_t* digit, uint64_t d) {
  unsigned __int128 rest = 0;
  for (int i = kMomentDigits - 1; i >= 0; --i) {
    if (rest == 0 && digit[i] == 0) continue;
    rest = rest << 32 | static_cast<uint64_t>(digit[i]);
    digit[i] = static_cast<int64_t>(static_cast<uint64_t>(rest / d));
    rest %= d;
  }
  return rest != 0;
}

// Of sums in accumulators, which are left tidied. n > 0.
NDP_HD static inline void finish(Moments& of, int64_t n, int64_t correction, const Format& format,
                                 uint64_t& var, uint64_t& mean) {
  WideAcc& sum = of.sum.acc;
  if (special(sum.specials, format, mean)) {
    var = format.quiet_nan;
    return;
  }
  const bool negative = take_sign(sum);
  mean = round_leading(quotient(leading(sum), static_cast<uint64_t>(n)), negative, format);

  carry(of.squares.acc);
  int64_t digit[kMomentDigits] = {};
  int64_t* const difference = digit + kBelow;
  unsigned __int128 over = 0;
  for (int i = 0; i < kWideDigits + 2; ++i) {
    const uint64_t of_squares = i < kWideDigits ? of.squares.acc.digit[i] : 0;
    over += static_cast<unsigned __int128>(of_squares) * static_cast<uint64_t>(n);
    difference[i] = static_cast<int64_t>(static_cast<uint64_t>(over) & 0xffffffff);
    over >>= 32;
  }
  const int64_t* const one = sum.digit + kFirstSumDigit;
  int count = kWideDigits - kFirstSumDigit;
  while (count > 0 && one[count - 1] == 0) --count;
  for (int i = 0; i < count; ++i) {
    if (one[i] == 0) continue;
    __int128 borrow = 0;
    for (int k = i; k < kWideDigits + 2; ++k) {
      if (k - i >= count && borrow == 0) break;
      const uint64_t other = k - i < count ? one[k - i] : 0;
      borrow += difference[k];
      borrow -= static_cast<unsigned __int128>(static_cast<uint64_t>(one[i])) * other;
      difference[k] = static_cast<int64_t>(borrow & 0xffffffff);
      borrow >>= 32;
    }
  }
  if (n <= correction) {
    var = without_freedom(leading(digit, kMomentDigits, kMomentLowest).bits != 0, format);
    return;
  }
  bool rest = divide(digit, n);
  rest |= divide(digit, static_cast<uint64_t>(n) - static_cast<uint64_t>(correction));
  Leading found = leading(digit, kMomentDigits, kMomentLowest);
  found.sticky |= rest;
  var = round_leading(found, false, format);
}

}  // namespace ndp
