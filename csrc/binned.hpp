// Binned sums: order-invariant with a state of a few words (the method of Demmel and Nguyen, in
// the form with a constant grid and integer bins).
//
// Bin j collects multiples of 2^(40 j). A sum keeps K neighbouring bins, the highest chosen by the
// largest |x| so far: top = floor(E / 40) where |x| < 2^E. Each element is cut, from the top bin
// down, into the nearest multiple of the bin's unit (ties to even) and the rest; what remains after
// K bins is dropped. The grid is absolute and every cut looks at one element alone, so a bin's
// content is a function of the multiset of elements, given the final top bin. A top that rises
// later needs no second look: an element put in under a lower top satisfies |x| < 2^(40 top' - 1)
// for every higher bin top', half of that bin's unit, so its slice there is zero.
//
// Error: each element loses at most half a unit of the lowest bin, and the largest element is at
// least 2^(40 top - 1), so |sum - exact| <= n 2^(-40 (K - 1)) max|x|, then one rounding to the
// result's format. At the lowest top (kLowestTop) nothing is lost at all.
#pragma once

#include "superacc.hpp"

namespace ndp {

constexpr int kBinBits = 40;
constexpr int kMostBins = 3;
// Bin units are scaled by 2^(-40 top) while slicing, which must be a normal fp64 number.
constexpr int kLowestTop = -25;
// A slice is at most 2^39 units, so 2^13 of them add up exactly in fp64 (53 bits).
constexpr int64_t kBinnedBlock = 4096;

// Number of bins for fp64 input, and for the narrower formats.
constexpr int kBins64 = 3;
constexpr int kBins32 = 2;

struct Binned {
  int top;
  __int128 bin[kMostBins];  // in units of 2^(40 (top - i)); 2^88 terms fit
  Specials specials;
};

NDP_HD static inline void clear(Binned& sum) {
  std::memset(&sum, 0, sizeof sum);
  sum.top = kLowestTop;
}

// The top bin for elements with |x| < 2^exponent, were there no lowest one.
NDP_HD static inline int unbounded_top_bin(int exponent) {
  return exponent >= 0 ? exponent / kBinBits : -((kBinBits - 1 - exponent) / kBinBits);
}

NDP_HD static inline int top_bin(int exponent) {
  const int top = unbounded_top_bin(exponent);
  return top < kLowestTop ? kLowestTop : top;
}

NDP_HD static inline void raise_top(Binned& sum, int top) {
  if (top <= sum.top) return;
  const int steps = top - sum.top;
  for (int i = kMostBins - 1; i >= 0; --i) sum.bin[i] = i >= steps ? sum.bin[i - steps] : 0;
  sum.top = top;
}

NDP_HD static inline void merge(Binned& into, Binned from, int bins) {
  raise_top(into, from.top);
  raise_top(from, into.top);
  for (int i = 0; i < bins; ++i) into.bin[i] += from.bin[i];
  merge(into.specials, from.specials);
}

// The value of the bins, for rounding.
NDP_HD static inline void to_superacc(const Binned& sum, int bins, Superacc& acc) {
  clear(acc);
  acc.specials = sum.specials;
  for (int i = 0; i < bins; ++i) {
    const bool negative = sum.bin[i] < 0;
    const unsigned __int128 bin = static_cast<unsigned __int128>(sum.bin[i]);
    make_room(acc, 1);
    deposit_magnitude(acc, negative ? -bin : bin, kBinBits * (sum.top - i), negative);
  }
}

}  // namespace ndp
