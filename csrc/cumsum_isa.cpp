// The loops of `cumsum` in fixed order, compiled once for each ISA level.
#include "cumsum.hpp"

#include <cstdint>
#include <cstring>

#include "rounding.hpp"
#pragma GCC diagnostic push
// gcc 12 takes the deliberately undefined registers of its own AVX-512 header for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "simd.hpp"
#pragma GCC diagnostic pop

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined

namespace ndp::NDP_ISA {

#include "sum_lanes.hpp"

namespace {

template <class T>
NDP_INLINE typename Traits<T>::Partial partial(T x) {
  return static_cast<typename Traits<T>::Partial>(value(x));
}

NDP_INLINE void store(double sum, double* to) { *to = sum == sum ? sum : __builtin_nan(""); }
NDP_INLINE void store(float sum, float* to) { *to = sum == sum ? sum : __builtin_nanf(""); }
NDP_INLINE void store(float sum, Bfloat16* to) {
  to->bits = static_cast<uint16_t>(round_double(sum, kFormatBf16));
}
NDP_INLINE void store(float sum, Float16* to) {
  to->bits = static_cast<uint16_t>(round_double(sum, kFormat16));
}

// Adds up whole blocks, side by side because each addition of a block waits for the one before.
// keep(i, sum) takes the sum of elements up to i of i's block.
template <class T, class Keep>
NDP_INLINE void add_blocks(const T* x, int64_t n, typename Traits<T>::Partial* totals,
                           const Keep& keep) {
  using Partial = typename Traits<T>::Partial;
  constexpr int kSideBySide = 8;
  constexpr int64_t kGroup = kSideBySide * kScanBlock;
  int64_t start = 0;
  for (; start + kGroup <= n; start += kGroup) {
    Partial sums[kSideBySide];
    for (Partial& sum : sums) sum = -Partial{0};  // -0.0 plus x is x, for every x
    for (int64_t i = 0; i < kScanBlock; ++i) {
#pragma GCC unroll 8
      for (int block = 0; block < kSideBySide; ++block) {
        const int64_t at = start + block * kScanBlock + i;
        sums[block] += partial(x[at]);
        keep(at, sums[block]);
      }
    }
    std::memcpy(totals + start / kScanBlock, sums, sizeof sums);
  }
  for (; start < n; start += kScanBlock) {
    Partial sum = -Partial{0};
    for (int64_t i = start; i < n && i < start + kScanBlock; ++i) {
      sum += partial(x[i]);
      keep(i, sum);
    }
    totals[start / kScanBlock] = sum;
  }
}

template <class T>
void total(const void* x, int64_t n, void* result) {
  using Partial = typename Traits<T>::Partial;
  Partial totals[kScanChunk / kScanBlock];
  add_blocks(static_cast<const T*>(x), n, totals, [](int64_t, Partial) {});
  Partial sum = -Partial{0};
  for (int64_t block = 0; block * kScanBlock < n; ++block) sum += totals[block];
  *static_cast<Partial*>(result) = sum;
}

template <class T>
void scan(const void* x, int64_t n, const void* offset, void* sums, void* result) {
  using Partial = typename Traits<T>::Partial;
  Partial within[kScanChunk], totals[kScanChunk / kScanBlock];
  add_blocks(static_cast<const T*>(x), n, totals,
             [&](int64_t i, Partial sum) __attribute__((always_inline)) { within[i] = sum; });
  const Partial before_chunk = *static_cast<const Partial*>(offset);
  T* to = static_cast<T*>(sums);
  Partial before_block = -Partial{0};
  for (int64_t block = 0; block * kScanBlock < n; ++block) {
    const Partial before = before_chunk + before_block;
    const int64_t start = block * kScanBlock;
    const int64_t end = n < start + kScanBlock ? n : start + kScanBlock;
    for (int64_t i = start; i < end; ++i) store(before + within[i], to + i);
    before_block += totals[block];
  }
  *static_cast<Partial*>(result) = before_block;
}

template <class T>
constexpr CumsumKernels kKernels{total<T>, scan<T>};

}  // namespace

CumsumKernels cumsum_kernels(Dtype dtype) {
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
