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
#include "product_lanes.hpp"

namespace {

template <class T>
Products<T> products(const void* a, const void* b, int64_t from) {
  return {static_cast<const T*>(a) + from, static_cast<const T*>(b) + from};
}

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
  if (most == 0 && sizeof(T) < sizeof(double)) return true;  // of fp64 they may have underflowed
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
