// The loops of the accuracy baselines of `sum`, compiled once for each ISA level.
#include <cstdint>
#include <cstring>

#include "sum.hpp"
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

// As many lanes at a time as leave the registers room; each pass reads its own columns of a chunk.
template <class T>
constexpr int kVectors = 4;
template <class T>
constexpr int kPassLanes = kVectors<T> * kBytes / static_cast<int>(sizeof(typename Traits<T>::Partial));

template <class Partial>
void fold(Partial* lane) {
  for (int half = kSumLanes / 2; half >= 1; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
}

// ---- pairwise: rows of 64 lanes are added like the leaves of a tree, then the lanes in halves.

template <class T>
typename Traits<T>::Partial pairwise_chunk(const T* x, int64_t n) {
  using Partial = typename Traits<T>::Partial;
  using Vector = decltype(partials(x));
  constexpr int kWidth = kBytes / sizeof(Partial);
  constexpr int kLevels = 7;  // of 64 rows
  Partial lane[kSumLanes];
  for (int first = 0; first < kSumLanes; first += kPassLanes<T>) {
    Vector waiting[kLevels][kVectors<T>];  // at level i the sum of 2^i rows, where bit i of `rows` is
    int rows = 0;
    for_rows(x, n, [&](const T* row) __attribute__((always_inline)) {
      Vector sums[kVectors<T>];
      for (int k = 0; k < kVectors<T>; ++k) sums[k] = partials(row + first + k * kWidth);
      int level = 0;
      for (; rows >> level & 1; ++level)
        for (int k = 0; k < kVectors<T>; ++k) sums[k] = waiting[level][k] + sums[k];
      std::memcpy(waiting[level], sums, sizeof sums);
      ++rows;
    });
    // What has no neighbour passes up as it is.
    int level = __builtin_ctz(static_cast<unsigned>(rows));
    Vector sums[kVectors<T>];
    std::memcpy(sums, waiting[level], sizeof sums);
    for (++level; rows >> level != 0; ++level)
      if (rows >> level & 1)
        for (int k = 0; k < kVectors<T>; ++k) sums[k] = waiting[level][k] + sums[k];
    std::memcpy(lane + first, sums, sizeof sums);
  }
  fold(lane);
  return lane[0];
}

template <class T>
void pairwise_chunks(const void* data, int64_t n, void* partials) {
  const T* x = static_cast<const T*>(data);
  auto* result = static_cast<typename Traits<T>::Partial*>(partials);
  for (int64_t i = 0; i < n; i += kSumChunk)
    result[i / kSumChunk] = pairwise_chunk(x + i, n - i < kSumChunk ? n - i : kSumChunk);
}

// ---- kahan: the lanes of fixed_order, each with the textbook's compensation.

template <class T>
void kahan_rows(const T* x, int64_t n, typename Traits<T>::Partial* sum,
                typename Traits<T>::Partial* lost) {
  using Vector = decltype(partials(x));
  constexpr int kWidth = kBytes / sizeof(*sum);
  for (int first = 0; first < kSumLanes; first += kPassLanes<T>) {
    Vector sums[kVectors<T>], losts[kVectors<T>];
    std::memcpy(sums, sum + first, sizeof sums);
    std::memset(losts, 0, sizeof losts);
    for_rows(x, n, [&](const T* row) __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int k = 0; k < kVectors<T>; ++k) {
        const Vector addend = partials(row + first + k * kWidth) - losts[k];
        const Vector next = sums[k] + addend;
        losts[k] = (next - sums[k]) - addend;
        sums[k] = next;
      }
    });
    std::memcpy(sum + first, sums, sizeof sums);
    std::memcpy(lost + first, losts, sizeof losts);
  }
}

template <class T>
void kahan_chunk(const T* x, int64_t n, Compensated<typename Traits<T>::Partial>& result) {
  using Partial = typename Traits<T>::Partial;
  Partial sum[kSumLanes], lost[kSumLanes];
  for (Partial& lane : sum) lane = -Partial{0};  // -0.0 plus x is x, for every x
  kahan_rows(x, n, sum, lost);
  for (int half = kSumLanes / 2; half >= 1; half /= 2)
    for (int j = 0; j < half; ++j) {
      const auto both = add(Compensated<Partial>{sum[j], lost[j]},
                            Compensated<Partial>{sum[j + half], lost[j + half]});
      sum[j] = both.sum;
      lost[j] = both.lost;
    }
  result = {sum[0], lost[0]};
}

template <class T>
void kahan_chunks(const void* data, int64_t n, void* compensated) {
  const T* x = static_cast<const T*>(data);
  auto* result = static_cast<Compensated<typename Traits<T>::Partial>*>(compensated);
  for (int64_t i = 0; i < n; i += kSumChunk) {
    const int64_t count = n - i < kSumChunk ? n - i : kSumChunk;
    auto& of_chunk = result[i / kSumChunk];
    kahan_chunk(x + i, count, of_chunk);
    // Compensation makes NaN of an infinity. Plain additions do not.
    if (!(of_chunk.lost - of_chunk.lost == 0 && of_chunk.sum - of_chunk.sum == 0))
      of_chunk = {pairwise_chunk(x + i, count), 0};
  }
}

template <class T>
constexpr BaselineKernels kKernels{pairwise_chunks<T>, kahan_chunks<T>};

}  // namespace

BaselineKernels baseline_kernels(Dtype dtype) {
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
