// The loops of `var`, compiled once for each ISA level.
#include "var.hpp"

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
struct Values {
  using Partial = typename Traits<T>::Partial;
  const T* x;
  NDP_INLINE Doubles wide(int64_t i) const { return doubles(x + i); }
  NDP_INLINE double wide_one(int64_t i) const { return value(x[i]); }
  NDP_INLINE auto rounded(int64_t i) const { return partials(x + i); }
  NDP_INLINE Partial rounded_one(int64_t i) const { return static_cast<Partial>(value(x[i])); }
};

// Squared deviations: one rounding for the difference, one for its square.
template <class T>
struct Deviations {
  using Partial = typename Traits<T>::Partial;
  const T* x;
  Partial mean;
  NDP_INLINE auto rounded(int64_t i) const {
    const auto deviation = partials(x + i) - mean;
    return deviation * deviation;
  }
  NDP_INLINE Partial rounded_one(int64_t i) const {
    const Partial deviation = static_cast<Partial>(value(x[i])) - mean;
    return deviation * deviation;
  }
};

template <class T>
void sum(const void* x, int64_t n, void* result) {
  *static_cast<typename Traits<T>::Partial*>(result) =
      add_in_lanes(Values<T>{static_cast<const T*>(x)}, n);
}

template <class T>
void squares(const void* x, int64_t n, const void* mean, void* result) {
  using Partial = typename Traits<T>::Partial;
  const Partial around = *static_cast<const Partial*>(mean);
  *static_cast<Partial*>(result) =
      add_in_lanes(Deviations<T>{static_cast<const T*>(x), around}, n);
}

// Both parts of a split in units of the second.
__int128 whole(const int64_t (&totals)[2]) {
  return static_cast<__int128>(totals[0]) * (int64_t{1} << (52 - kAddendLaneBits)) + totals[1];
}

template <class T>
bool add_quickly(const T* x, int64_t n, int exponent, QuickMoments& found) {
  found = {0, 0, unit_of_part(exponent, 1), unit_of_part(2 * exponent, 1)};
  for (int64_t i = 0; i < n; i += kAddendBlock) {
    const int64_t count = at_most(n - i, kAddendBlock);
    int64_t totals[2];
    if (!split_addends<2>(Values<T>{x + i}, count, exponent, totals)) return false;
    found.sum += whole(totals);
    if (!split_addends<2>(Products<T>{x + i, x + i}, count, 2 * exponent, totals)) return false;
    found.squares += whole(totals);
  }
  return true;
}

template <class T>
bool quick(const void* data, int64_t n, int& exponent, QuickMoments& found) {
  const T* x = static_cast<const T*>(data);
  if (add_quickly(x, n, exponent, found)) return true;
  const auto most = largest(x, n);
  if (most >= Traits<T>::infinity) return false;
  constexpr int kLeast = -149;  // the last bit of any narrow float
  const int own = exponent_above<T>(most);
  exponent = own > kLeast ? own : kLeast;
  return add_quickly(x, n, exponent, found);
}

template <class T>
void exact(const void* data, int64_t n, Moments& sums) {
  const T* x = static_cast<const T*>(data);
  for (int64_t i = 0; i < n; i += kAddendBlock) {
    const int64_t count = at_most(n - i, kAddendBlock);
    const Values<T> values{x + i};
    make_room(sums.sum.acc, count);
    if (!add_splits<3>(values, count, sums.sum.high, sums.sum.acc))
      for (int64_t j = 0; j < count; ++j) deposit(sums.sum.acc, values.wide_one(j));
    exact_block(Products<T>{x + i, x + i}, count, sums.squares);
  }
}

template <class T>
constexpr VarKernels kKernels{sum<T>, squares<T>, quick<T>, exact<T>};

}  // namespace

VarKernels var_kernels(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return {sum<double>, squares<double>, nullptr, exact<double>};
    case Dtype::float32:
      return kKernels<float>;
    case Dtype::bfloat16:
      return kKernels<Bfloat16>;
    default:
      return kKernels<Float16>;
  }
}

}  // namespace ndp::NDP_ISA
