// The rows of layer_norm and rms_norm, compiled once for each ISA level.
#include <cstdint>
#include <cstring>

#include "inexact.hpp"
#include "layer_norm.hpp"
#pragma GCC diagnostic push
// gcc 12 takes the deliberately undefined registers of its own AVX-512 header for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "simd.hpp"
#pragma GCC diagnostic pop

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined

namespace ndp::NDP_ISA {

#include "sum_lanes.hpp"
#include "row_lanes.hpp"
#include "exact_columns.hpp"

namespace {

template <class P>
NDP_INLINE P root(P x) {
  if constexpr (sizeof(P) == sizeof(float))
    return __builtin_sqrtf(x);
  else
    return __builtin_sqrt(x);
}

template <class T, bool kCentred>
void forward_rows(const NormRows& job, int64_t first, int64_t count, void* scratch) {
  using P = typename Traits<T>::Partial;
  using Vector = VectorOf<P>;
  const int64_t n = job.columns;
  const P elements = static_cast<P>(n), eps = static_cast<P>(job.eps);
  const P *weight = static_cast<const P*>(job.weight), *bias = static_cast<const P*>(job.bias);
  P *read = static_cast<P*>(scratch), *written = read + padded(n);
  for (int64_t row = first; row < first + count; ++row) {
    const auto x = read_row(static_cast<const T*>(job.x) + row * n, n, read);
    P mean[1] = {0}, squares[1];
    if constexpr (kCentred) {
      row_sums(n, mean, [&](int64_t i, int k, Vector* terms) __attribute__((always_inline)) {
        terms[0] = load<Vector>(x.at(i) + k);
      });
      mean[0] /= elements;
    }
    const Vector centre = everywhere<P>(mean[0]);
    row_sums(n, squares, [&](int64_t i, int k, Vector* terms) __attribute__((always_inline)) {
      const Vector element = load<Vector>(x.at(i) + k);
      const Vector apart = kCentred ? element - centre : element;
      terms[0] = apart * apart;
    });
    const P scale = 1 / root(squares[0] / elements + eps);
    const Vector factor = everywhere<P>(scale);
    T* to = static_cast<T*>(job.result) + row * n;
    const auto y = start_row(to, n, written);
    for_lanes<P>(n, [&](int64_t i, int k) __attribute__((always_inline)) {
      if (k == 0) prefetch_block(static_cast<const T*>(job.x) + (row + 1) * n + i);
      const Vector element = load<Vector>(x.at(i) + k);
      const Vector normed = (kCentred ? element - centre : element) * factor;
      store<P>(y.at(i) + k, tidy<P>(normed * load<Vector>(weight + i + k) +
                                    load<Vector>(bias + i + k)));
    });
    finish_row(y, n, to);
    if (job.mean == nullptr) continue;
    static_cast<P*>(job.mean)[row] = tidy_one(mean[0]);
    static_cast<P*>(job.scale)[row] = tidy_one(scale);
  }
}

template <class T, bool kCentred, bool kParameters>
void backward_rows(const NormRows& job, int64_t first, int64_t count, void* scratch, void* dgamma,
                   void* dbeta) {
  using P = typename Traits<T>::Partial;
  using Vector = VectorOf<P>;
  constexpr int kSums = kCentred ? 2 : 1;
  const int64_t n = job.columns;
  const P elements = static_cast<P>(n);
  const P* weight = static_cast<const P*>(job.weight);
  P *read = static_cast<P*>(scratch), *read_gradient = read + padded(n),
    *written = read_gradient + padded(n);
  P *gamma = static_cast<P*>(dgamma), *beta = static_cast<P*>(dbeta);
  for (int64_t row = first; row < first + count; ++row) {
    const auto x = read_row(static_cast<const T*>(job.x) + row * n, n, read);
    const auto dy = read_row(static_cast<const T*>(job.gradient) + row * n, n, read_gradient);
    const Vector centre = everywhere<P>(static_cast<const P*>(job.mean)[row]);
    const Vector scale = everywhere<P>(static_cast<const P*>(job.scale)[row]);
    P means[kSums];
    row_sums(n, means, [&](int64_t i, int k, Vector* terms) __attribute__((always_inline)) {
      const Vector element = load<Vector>(x.at(i) + k), gradient = load<Vector>(dy.at(i) + k);
      const Vector factor = load<Vector>(weight + i + k);
      const Vector normed = (kCentred ? element - centre : element) * scale;
      const Vector term = gradient * normed;
      if constexpr (kParameters) {
        store<P>(gamma + i + k, load<Vector>(gamma + i + k) + term);
        if constexpr (kCentred)
          store<P>(beta + i + k, load<Vector>(beta + i + k) + gradient);
      }
      terms[kSums - 1] = term * factor;
      if constexpr (kCentred) terms[0] = gradient * factor;
    });
    for (P& mean : means) mean /= elements;
    const Vector along = everywhere<P>(means[kSums - 1]), level = everywhere<P>(means[0]);
    T* to = static_cast<T*>(job.result) + row * n;
    const auto dx = start_row(to, n, written);
    for_lanes<P>(n, [&](int64_t i, int k) __attribute__((always_inline)) {
      if (k == 0) {
        prefetch_block(static_cast<const T*>(job.x) + (row + 1) * n + i);
        prefetch_block(static_cast<const T*>(job.gradient) + (row + 1) * n + i);
      }
      const Vector element = load<Vector>(x.at(i) + k);
      const Vector scaled = load<Vector>(dy.at(i) + k) * load<Vector>(weight + i + k);
      const Vector normed = (kCentred ? element - centre : element) * scale;
      const Vector taken = kCentred ? normed * along + level : normed * along;
      const Vector found = tidy<P>((scaled - taken) * scale);
      if (sizeof(T) == sizeof(P) && job.past && i < dx.split)
        store_past<P>(dx.whole + i + k, found);
      else
        store<P>(dx.at(i) + k, found);
    });
    finish_row(dx, n, to);
  }
  if (job.past) end_past();
}

template <class T, bool kCentred>
void backward(const NormRows& job, int64_t first, int64_t count, void* scratch, void* dgamma,
              void* dbeta) {
  if (dgamma != nullptr)
    backward_rows<T, kCentred, true>(job, first, count, scratch, dgamma, dbeta);
  else
    backward_rows<T, kCentred, false>(job, first, count, scratch, nullptr, nullptr);
}

// The same terms as in backward_rows, kExactRows rows of kSumLanes columns at a time.
template <class T, bool kCentred>
void exact(const NormRows& job, int64_t first, int64_t columns, ColumnSum* dgamma,
           ColumnSum* dbeta) {
  using P = typename Traits<T>::Partial;
  using Vector = VectorOf<P>;
  P terms[kExactRows * kSumLanes], gradients[kExactRows * kSumLanes];
  P element_lanes[kSumLanes], gradient_lanes[kSumLanes];
  for (int64_t start = 0; start < job.rows; start += kExactRows) {
    const int64_t rows = job.rows - start < kExactRows ? job.rows - start : kExactRows;
    for (int64_t column = 0; column < columns; column += kSumLanes) {
      const int64_t wide = columns - column < kSumLanes ? columns - column : kSumLanes;
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t row = start + i, at = row * job.columns + first + column;
        const auto x = read_row(static_cast<const T*>(job.x) + at, wide, element_lanes);
        const auto dy = read_row(static_cast<const T*>(job.gradient) + at, wide, gradient_lanes);
        const Vector centre = everywhere<P>(static_cast<const P*>(job.mean)[row]);
        const Vector scale = everywhere<P>(static_cast<const P*>(job.scale)[row]);
        for_lanes<P>(kSumLanes, [&](int64_t, int k) __attribute__((always_inline)) {
          const Vector element = load<Vector>(x.at(0) + k), gradient = load<Vector>(dy.at(0) + k);
          const Vector normed = (kCentred ? element - centre : element) * scale;
          store<P>(terms + i * kSumLanes + k, gradient * normed);
          store<P>(gradients + i * kSumLanes + k, gradient);
        });
      }
      add_columns(terms, rows, wide, dgamma + column);
      if constexpr (kCentred) add_columns(gradients, rows, wide, dbeta + column);
    }
  }
}

template <class P>
void fold(const void* all_parts, int64_t count, int64_t apart, int64_t first, int64_t columns,
          void* sums) {
  using Vector = VectorOf<P>;
  constexpr int kVectors = 64 / sizeof(Vector);  // a cache line
  const P* parts = static_cast<const P*>(all_parts);
  for (int64_t column = first; column < first + columns; column += kVectors * kWidth<P>) {
    Vector pending[kVectors][64];  // as in row_sums
    int waiting = 0;
    for (int64_t part = 0; part < count; ++part) {
      for (int k = 0; k < kVectors; ++k)
        pending[k][waiting] = load<Vector>(parts + part * apart + column + k * kWidth<P>);
      ++waiting;
      for (int64_t done = part; done & 1; done >>= 1, --waiting)
        for (auto& of_one : pending) of_one[waiting - 2] += of_one[waiting - 1];
    }
    for (; waiting > 1; --waiting)
      for (auto& of_one : pending) of_one[waiting - 2] += of_one[waiting - 1];
    for (int k = 0; k < kVectors; ++k)
      store<P>(static_cast<P*>(sums) + column + k * kWidth<P>, pending[k][0]);
  }
}

template <class T, bool kCentred>
constexpr NormKernels kKernels{forward_rows<T, kCentred>,
                               backward<T, kCentred>,
                               exact<T, kCentred>,
                               fold<typename Traits<T>::Partial>,
                               widen<T>,
                               narrow_from<T>};

}  // namespace

NormKernels norm_kernels(Dtype dtype, bool centred) {
  switch (dtype) {
    case Dtype::float64:
      return centred ? kKernels<double, true> : kKernels<double, false>;
    case Dtype::float32:
      return centred ? kKernels<float, true> : kKernels<float, false>;
    case Dtype::bfloat16:
      return centred ? kKernels<Bfloat16, true> : kKernels<Bfloat16, false>;
    default:
      return centred ? kKernels<Float16, true> : kKernels<Float16, false>;
  }
}

}  // namespace ndp::NDP_ISA
