// The loops of `dot` and `norm`, compiled once for each ISA level.
#include "dot.hpp"

#include <bit>
#include <cstdint>
#include <cstring>

#pragma GCC diagnostic push
// gcc 12 takes the deliberately undefined registers of its own AVX-512 header for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "simd.hpp"
#pragma GCC diagnostic pop

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined

namespace ndp::NDP_ISA {

#include "sum_lanes.hpp"
#include "source_lanes.hpp"

namespace {

template <class T>
struct Products {
  using Partial = typename Traits<T>::Partial;
  const T* a;
  const T* b;
  // Of the formats narrower than fp64 this is exact, and neither overflows nor underflows.
  NDP_INLINE Doubles wide(int64_t i) const { return doubles(a + i) * doubles(b + i); }
  NDP_INLINE double wide_one(int64_t i) const { return value(a[i]) * value(b[i]); }
  NDP_INLINE auto rounded(int64_t i) const { return partials(a + i) * partials(b + i); }
  NDP_INLINE Partial rounded_one(int64_t i) const {
    return static_cast<Partial>(value(a[i])) * static_cast<Partial>(value(b[i]));
  }
};

template <class T>
Products<T> products(const void* a, const void* b, int64_t from) {
  return {static_cast<const T*>(a) + from, static_cast<const T*>(b) + from};
}

int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

template <class T>
void chunks(const void* a, const void* b, int64_t n, void* partials) {
  auto* result = static_cast<typename Traits<T>::Partial*>(partials);
  for (int64_t i = 0; i < n; i += kSumChunk)
    result[i / kSumChunk] = add_in_lanes(products<T>(a, b, i), at_most(n - i, kSumChunk));
}

// ---- binned

// Slices of whole vectors, as in sum_isa.cpp, of products rounded to fp64. False, and nothing
// added, where a product is no finite number or the bins lie where fp64 cannot scale or would have
// rounded a subnormal product.
template <class T>
bool bin_quickly(const Products<T>& source, int64_t n, Binned& sum) {
  const uint64_t most = largest_addend(source, n);
  if (most == 0) return true;
  if (most >= kInfinityBits) return false;
  int top = product_top_bin(exponent_above<double>(most));
  top = top > sum.top ? top : sum.top;
  // Below 2^-1022, where products are subnormal, nothing reaches the lowest bin from here on.
  constexpr int kLowestQuickTop = -22, kHighestQuickTop = 25;
  if (top < kLowestQuickTop || top > kHighestQuickTop) return false;
  raise_top(sum, top);

  constexpr int kBins = Traits<T>::bins;
  constexpr int kSets = 2;  // independent sums, to hide the latency of an addition
  const Doubles scale =
      spread(__builtin_bit_cast(double, static_cast<uint64_t>(1023 - kBinBits * top) << 52));
  Doubles bins[kSets][kBins] = {};
  for_addends(source, n, [&](const auto& addends) __attribute__((always_inline)) {
#pragma GCC unroll 64
    for (int k = 0; k < kSumLanes / kDoubles; ++k) {
      Doubles rest = addends(k) * scale;
      double grid = 0x1.8p52;
#pragma GCC unroll 3
      for (int i = 0; i < kBins; ++i) {
        const Doubles slice = (rest + grid) - grid;
        bins[k % kSets][i] += slice;
        rest -= slice;
        grid *= 0x1p-40;
      }
    }
  });
  double unit = 1.0;
  for (int i = 0; i < kBins; ++i) {
    double total = 0.0;
    for (int set = 0; set < kSets; ++set)
      for (int lane = 0; lane < kDoubles; ++lane) total += bins[set][i][lane];
    sum.bin[i] += static_cast<int64_t>(total * unit);
    unit *= 0x1p40;
  }
  return true;
}

// To the nearest multiple of 2^places, ties to even, in units of it. |x| < 2^62, places > 0.
int64_t nearest(int64_t x, int places) {
  if (places > 62) return 0;
  const int64_t whole = x >> places;
  const int64_t rest = x & ((int64_t{1} << places) - 1);
  const int64_t half = int64_t{1} << (places - 1);
  return whole + (rest > half || (rest == half && (whole & 1)));
}

// The same slices of one product after the other, in integers: the product is rounded to 53 bits
// whatever its exponent.
template <int kBins>
void bin_product(double a, double b, Binned& sum) {
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
  raise_top(sum, product_top_bin(exponent + 64 - __builtin_clzll(rounded)));
  if (x.negative != y.negative) left = -left;
  for (int i = 0; i < kBins && left != 0; ++i) {
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

template <class T>
void binned(const void* a, const void* b, int64_t n, Binned& sum) {
  for (int64_t i = 0; i < n; i += kBinnedBlock) {
    const Products<T> source = products<T>(a, b, i);
    const int64_t count = at_most(n - i, kBinnedBlock);
    if (bin_quickly(source, count, sum)) continue;
    for (int64_t j = 0; j < count; ++j)
      bin_product<Traits<T>::bins>(value(source.a[j]), value(source.b[j]), sum);
  }
}

// ---- exact

// What fl(a b) leaves of a b, by Dekker and Veltkamp: exact for operands within the bounds below.
struct Rests {
  const double* a;
  const double* b;
  template <class Number>
  NDP_INLINE static Number rest(const Number& x, const Number& y) {
    const Number x_spread = x * 0x1.0000002p27, y_spread = y * 0x1.0000002p27;
    const Number x_high = x_spread - (x_spread - x), y_high = y_spread - (y_spread - y);
    const Number x_low = x - x_high, y_low = y - y_high;
    return ((x_high * y_high - x * y) + x_high * y_low + x_low * y_high) + x_low * y_low;
  }
  NDP_INLINE Doubles wide(int64_t i) const { return rest(doubles(a + i), doubles(b + i)); }
  NDP_INLINE double wide_one(int64_t i) const { return rest(a[i], b[i]); }
};

// Whether every element is 0 or between 2^-450 and 2^450.
bool is_moderate(const double* x, int64_t n) {
  const uint64_t least = uint64_t{1023 - 450} << 52, span = uint64_t{900} << 52;
  uint64_t outside = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint64_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffffffffffff;
    outside |= static_cast<uint64_t>(bits - least > span) & static_cast<uint64_t>(bits != 0);
  }
  return outside == 0;
}

template <int kParts, class Source>
bool add_split(const Source& source, int64_t n, int exponent, WideAcc& acc) {
  int64_t totals[kParts];
  if (!split_addends<kParts>(source, n, exponent, totals)) return false;
  make_room(acc, kParts);
  for (int i = 0; i < kParts; ++i) {
    const bool negative = totals[i] < 0;
    const uint64_t magnitude = static_cast<uint64_t>(totals[i]);
    deposit_magnitude(acc, negative ? -magnitude : magnitude, unit_of_part(exponent, i), negative);
  }
  return true;
}

template <int kMost, class Source>
bool add_parts(const Source& source, int64_t n, const Splits& splits, WideAcc& acc) {
  if (splits.parts == 2) return add_split<2>(source, n, splits.exponent, acc);
  if (splits.parts == 3) return add_split<3>(source, n, splits.exponent, acc);
  return kMost == 4 && add_split<4>(source, n, splits.exponent, acc);
}

// A block as the last one was split, or at its own exponent in as few parts as will do. False, and
// nothing added, where even `kMost` parts do not hold it.
template <int kMost, class Source>
bool add_splits(const Source& source, int64_t n, Splits& splits, WideAcc& acc) {
  constexpr int kBlocksAsBefore = 16;
  if (splits.idle > 0) {
    --splits.idle;
    return false;
  }
  if (splits.parts > 2 && ++splits.blocks == kBlocksAsBefore) {
    splits.parts = 2;
    splits.blocks = 0;
  }
  if (add_parts<kMost>(source, n, splits, acc)) return true;
  const uint64_t most = largest_addend(source, n);
  if (most == 0) return true;
  if (most < kInfinityBits) {
    splits.exponent = exponent_above<double>(most);
    for (splits.parts = 2; splits.parts <= kMost; ++splits.parts)
      if (add_parts<kMost>(source, n, splits, acc)) return true;
  }
  splits.parts = 2;
  splits.idle = kBlocksAsBefore;
  return false;
}

template <class T>
void exact_block(const Products<T>& source, int64_t n, ProductSum& sum) {
  if (add_splits<3>(source, n, sum.high, sum.acc)) return;
  make_room(sum.acc, n);
  for (int64_t i = 0; i < n; ++i) deposit(sum.acc, source.wide_one(i));
}

// Rests that do not fit are added one by one; where products do not, both are.
void exact_block(const Products<double>& source, int64_t n, ProductSum& sum) {
  make_room(sum.acc, 2 * n);
  if (!is_moderate(source.a, n) || !is_moderate(source.b, n) ||
      !add_splits<4>(source, n, sum.high, sum.acc)) {
    for (int64_t i = 0; i < n; ++i) deposit_product(sum.acc, source.a[i], source.b[i]);
    return;
  }
  const Rests rests{source.a, source.b};
  if (!add_splits<4>(rests, n, sum.low, sum.acc))
    for (int64_t i = 0; i < n; ++i) deposit(sum.acc, rests.wide_one(i));
}

template <class T>
void exact(const void* a, const void* b, int64_t n, ProductSum& sum) {
  for (int64_t i = 0; i < n; i += kAddendBlock)
    exact_block(products<T>(a, b, i), at_most(n - i, kAddendBlock), sum);
}

template <class T>
constexpr DotKernels kKernels{chunks<T>, binned<T>, exact<T>};

}  // namespace

DotKernels dot_kernels(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return kKernels<double>;
    case Dtype::float32:
      return kKernels<float>;
    case Dtype::bfloat16:
      return kKernels<Bfloat16>;
    default:
      return kKernels<Float16>;
  }
}

}  // namespace ndp::NDP_ISA
