// The rows of softmax, log_softmax and cross_entropy, compiled once for each ISA level.
#include <cstdint>
#include <cstring>

#include "exp_log.hpp"
#include "softmax.hpp"
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

namespace {

template <class P>
struct ExpFor {
  using Of = Exp32;
};
template <>
struct ExpFor<double> {
  using Of = Exp64;
};

template <class P>
NDP_INLINE VectorOf<P> exps(VectorOf<P> x) {
  return exp_of<typename ExpFor<P>::Of, VectorOf<P>, WordsOf<P>>(x);
}

// The largest element; NaNs are passed over, and -inf is what is left of nothing.
template <class P>
NDP_INLINE P largest_of(const Row<P>& x, int64_t n) {
  using Vector = VectorOf<P>;
  constexpr int kAll = kSumLanes / kWidth<P>;
  Vector most[kAll];
  for (Vector& lanes : most) lanes = everywhere<P>(static_cast<P>(-__builtin_inf()));
  const int64_t split = whole_rows(n);
  for (int64_t i = 0; i < split; i += kSumLanes) {
#pragma GCC unroll 64
    for (int k = 0; k < kAll; ++k) {
      const Vector element = load<Vector>(x.at(i) + k * kWidth<P>);
      most[k] = element > most[k] ? element : most[k];
    }
  }
  P result = static_cast<P>(-__builtin_inf());
  for (int64_t i = split; i < n; ++i) {
    const P element = x.at(split)[i - split];
    result = element > result ? element : result;
  }
  for (int half = kAll / 2; half >= 1; half /= 2)
    for (int k = 0; k < half; ++k) most[k] = most[k + half] > most[k] ? most[k + half] : most[k];
  for (int lane = 0; lane < kWidth<P>; ++lane)
    result = most[0][lane] > result ? most[0][lane] : result;
  return result;
}

template <class T, bool kLog>
void softmax_rows(const SoftmaxRows& job, int64_t first, int64_t count, void* scratch) {
  using P = typename Traits<T>::Partial;
  using Vector = VectorOf<P>;
  const int64_t n = job.columns;
  P *read = static_cast<P*>(scratch), *written = read + padded(n);
  for (int64_t row = first; row < first + count; ++row) {
    const auto x = read_row(static_cast<const T*>(job.x) + row * n, n, read);
    T* to = static_cast<T*>(job.result) + row * n;
    const auto y = start_row(to, n, written);
    const Vector most = everywhere<P>(largest_of(x, n));
    P total[1];
    row_sums(n, total, [&](int64_t i, int k, Vector* terms) __attribute__((always_inline)) {
      terms[0] = exps<P>(load<Vector>(x.at(i) + k) - most);
      if constexpr (!kLog) store<P>(y.at(i) + k, terms[0]);
    });
    const Vector all =
        everywhere<P>(kLog ? static_cast<P>(log_of(static_cast<double>(total[0]))) : total[0]);
    for_lanes<P>(n, [&](int64_t i, int k) __attribute__((always_inline)) {
      if (k == 0) prefetch_block(static_cast<const T*>(job.x) + (row + 1) * n + i);
      const Vector result = kLog ? (load<Vector>(x.at(i) + k) - most) - all
                                 : load<Vector>(y.at(i) + k) / all;
      store<P>(y.at(i) + k, tidy<P>(result));
    });
    finish_row(y, n, to);
  }
}

template <class T, bool kLog>
void softmax_backward_rows(const SoftmaxRows& job, int64_t first, int64_t count, void* scratch) {
  using P = typename Traits<T>::Partial;
  using Vector = VectorOf<P>;
  const int64_t n = job.columns;
  P *read = static_cast<P*>(scratch), *read_gradient = read + padded(n),
    *written = read_gradient + padded(n);
  for (int64_t row = first; row < first + count; ++row) {
    const auto y = read_row(static_cast<const T*>(job.x) + row * n, n, read);
    const auto dy = read_row(static_cast<const T*>(job.gradient) + row * n, n, read_gradient);
    P total[1];
    row_sums(n, total, [&](int64_t i, int k, Vector* terms) __attribute__((always_inline)) {
      const Vector gradient = load<Vector>(dy.at(i) + k);
      terms[0] = kLog ? gradient : gradient * load<Vector>(y.at(i) + k);
    });
    const Vector all = everywhere<P>(total[0]);
    T* to = static_cast<T*>(job.result) + row * n;
    const auto dx = start_row(to, n, written);
    for_lanes<P>(n, [&](int64_t i, int k) __attribute__((always_inline)) {
      if (k == 0) {
        prefetch_block(static_cast<const T*>(job.x) + (row + 1) * n + i);
        prefetch_block(static_cast<const T*>(job.gradient) + (row + 1) * n + i);
      }
      const Vector gradient = load<Vector>(dy.at(i) + k), result = load<Vector>(y.at(i) + k);
      store<P>(dx.at(i) + k, tidy<P>(kLog ? gradient - exps<P>(result) * all
                                          : (gradient - all) * result));
    });
    finish_row(dx, n, to);
  }
}

template <class T>
void entropy_rows(const EntropyRows& job, int64_t first, int64_t count, void* scratch) {
  using P = typename Traits<T>::Partial;
  using Vector = VectorOf<P>;
  const int64_t n = job.columns;
  const P* weight = static_cast<const P*>(job.weight);
  for (int64_t row = first; row < first + count; ++row) {
    P* const loss = static_cast<P*>(job.loss) + row;
    const int64_t target = job.target[row];
    if (target == job.ignored) {
      *loss = static_cast<P*>(job.most)[row] = static_cast<P*>(job.total)[row] = 0;
      continue;
    }
    const auto x =
        read_row(static_cast<const T*>(job.x) + row * n, n, static_cast<P*>(scratch));
    const P greatest = largest_of(x, n);
    const Vector most = everywhere<P>(greatest);
    // Of the exponentials, and of weight times distance from the largest.
    P total[1], apart[1] = {0};
    row_sums(n, total, [&](int64_t i, int k, Vector* terms) __attribute__((always_inline)) {
      if (k == 0) prefetch_block(static_cast<const T*>(job.x) + (row + 1) * n + i);
      terms[0] = exps<P>(load<Vector>(x.at(i) + k) - most);
    });
    const double log_total = log_of(static_cast<double>(total[0]));
    const double here = static_cast<double>(x.at(whole_rows(target))[target % kSumLanes]);
    const double factor = static_cast<double>(weight[target]);
    double found = factor * (log_total - (here - static_cast<double>(greatest)));
    if (job.smoothing != 0) {
      // The sum over c of weight[c] (log_total - (x[c] - most)).
      const Vector log_of_total = everywhere<P>(static_cast<P>(log_total));
      row_sums(n, apart, [&](int64_t i, int k, Vector* terms) __attribute__((always_inline)) {
        terms[0] = load<Vector>(weight + i + k) *
                   (log_of_total - (load<Vector>(x.at(i) + k) - most));
      });
      found = found * (1 - job.smoothing) +
              static_cast<double>(apart[0]) * (job.smoothing / static_cast<double>(n));
    }
    *loss = tidy_one(static_cast<P>(found));
    static_cast<P*>(job.most)[row] = greatest;
    static_cast<P*>(job.total)[row] = tidy_one(total[0]);
  }
}

template <class T>
void entropy_backward_rows(const EntropyRows& job, int64_t first, int64_t count, void* scratch) {
  using P = typename Traits<T>::Partial;
  using Vector = VectorOf<P>;
  const int64_t n = job.columns;
  const P* weight = static_cast<const P*>(job.weight);
  P *read = static_cast<P*>(scratch), *written = read + padded(n);
  const P smoothing = static_cast<P>(job.smoothing / static_cast<double>(n));
  for (int64_t row = first; row < first + count; ++row) {
    const int64_t target = job.target[row];
    T* to = static_cast<T*>(job.result) + row * n;
    if (target == job.ignored) {
      std::memset(to, 0, n * sizeof(T));
      continue;
    }
    const P gradient = static_cast<const P*>(job.gradient)[row];
    // d loss / d x[c] = level p[c] - smoothing weight[c] - (c == target) hit, p the softmax.
    const P hit = static_cast<P>(1 - job.smoothing) * weight[target];
    const P level = hit + static_cast<P>(job.smoothing / static_cast<double>(n) * job.weights);
    const auto x = read_row(static_cast<const T*>(job.x) + row * n, n, read);
    const auto dx = start_row(to, n, written);
    const Vector most = everywhere<P>(static_cast<const P*>(job.most)[row]);
    const Vector scale = everywhere<P>(level / static_cast<const P*>(job.total)[row]);
    const Vector outer = everywhere<P>(gradient), smooth = everywhere<P>(smoothing);
    const bool smoothed = job.smoothing != 0;
    for_lanes<P>(n, [&](int64_t i, int k) __attribute__((always_inline)) {
      if (k == 0) prefetch_block(static_cast<const T*>(job.x) + (row + 1) * n + i);
      Vector slope = exps<P>(load<Vector>(x.at(i) + k) - most) * scale;
      if (smoothed) slope -= smooth * load<Vector>(weight + i + k);
      store<P>(dx.at(i) + k, tidy<P>(slope * outer));
    });
    // The target's own, once more.
    const int64_t block = whole_rows(target);
    P lanes[kSumLanes];
    for_lanes<P>(kSumLanes, [&](int64_t, int k) __attribute__((always_inline)) {
      Vector slope = exps<P>(load<Vector>(x.at(block) + k) - most) * scale;
      if (smoothed) slope -= smooth * load<Vector>(weight + block + k);
      store<P>(lanes + k, slope);
    });
    dx.at(block)[target - block] = tidy_one((lanes[target - block] - hit) * gradient);
    finish_row(dx, n, to);
  }
}

template <class P>
void sum_row(const void* data, int64_t n, void* result) {
  P lanes[kSumLanes], total[1];
  const auto x = read_row(static_cast<const P*>(data), n, lanes);
  row_sums(n, total, [&](int64_t i, int k, VectorOf<P>* terms) __attribute__((always_inline)) {
    terms[0] = load<VectorOf<P>>(x.at(i) + k);
  });
  *static_cast<P*>(result) = total[0];
}

template <class P>
void exp_row(const void* data, int64_t n, void* result) {
  using Vector = VectorOf<P>;
  P read[kSumLanes], written[kSumLanes];
  P* to = static_cast<P*>(result);
  const auto x = read_row(static_cast<const P*>(data), n, read);
  const auto y = start_row(to, n, written);
  for_lanes<P>(n, [&](int64_t i, int k) __attribute__((always_inline)) {
    store<P>(y.at(i) + k, tidy<P>(exps<P>(load<Vector>(x.at(i) + k))));
  });
  finish_row(y, n, to);
}

template <class T>
constexpr SoftmaxKernels kKernels{softmax_rows<T, false>,
                                  softmax_rows<T, true>,
                                  softmax_backward_rows<T, false>,
                                  softmax_backward_rows<T, true>,
                                  entropy_rows<T>,
                                  entropy_backward_rows<T>,
                                  widen<T>,
                                  narrow_from<T>,
                                  sum_row<typename Traits<T>::Partial>,
                                  exp_row<typename Traits<T>::Partial>};

}  // namespace

SoftmaxKernels softmax_kernels(Dtype dtype) {
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
