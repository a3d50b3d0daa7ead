// The loops of `dot` and `norm`, compiled once for each ISA level.
#include "binned_products.hpp"
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
  int top = unbounded_top_bin(exponent_above<double>(most));
  top = top > sum.top ? top : sum.top;
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

template <class T>
void binned(const void* a, const void* b, int64_t n, Binned& sum) {
  for (int64_t i = 0; i < n; i += kBinnedBlock) {
    const Products<T> source = products<T>(a, b, i);
    const int64_t count = at_most(n - i, kBinnedBlock);
    if (bin_quickly(source, count, sum)) continue;
    for (int64_t j = 0; j < count; ++j)
      bin_product(value(source.a[j]), value(source.b[j]), Traits<T>::bins, sum);
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
