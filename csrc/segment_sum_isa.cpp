// The loops of `segment_sum`, compiled once for each ISA level.
#include <cstdint>
#include <cstring>

#include "segment_sum.hpp"
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

NDP_INLINE float partial(float x) { return x; }
NDP_INLINE double partial(double x) { return x; }
NDP_INLINE float partial(Bfloat16 x) { return narrow_value(x); }
NDP_INLINE float partial(Float16 x) { return narrow_value(x); }

// A tile is as many columns as are added side by side: all of them, where they are few, and then
// several rows are one run of memory. `body(at, x, n)` for every run of n elements from x on, which
// belong to places at, at + 1, ... of a table of `lanes` rows of `width` places; row r goes to
// row r % lanes of the table.
template <class T, class Body>
NDP_INLINE void for_runs(const T* x, int64_t rows, int64_t columns, int64_t width, int64_t lanes,
                         const Body& body) {
  if (width == columns) {
    for (int64_t row = 0; row < rows; row += lanes)
      body(0, x + row * width, (rows - row < lanes ? rows - row : lanes) * width);
  } else {
    for (int64_t row = 0; row < rows; ++row) body(row % lanes * width, x + row * columns, width);
  }
}

// Calls body(to, from) for all pairs of places that are to be brought together, until row 0 of a
// table of `lanes` rows has everything; only the first `live` rows hold something.
template <class Body>
NDP_INLINE void fold(int64_t lanes, int64_t live, int64_t width, const Body& body) {
  for (int64_t half = lanes / 2; half >= 1; half /= 2) {
    if (live <= half) continue;
    const int64_t count = (live - half) * width;
    for (int64_t i = 0; i < count; ++i) body(i, i + half * width);
    live = half;
  }
}

// ---- ordered: per column the tree of sum's fixed_order. Lanes that no row reaches are left out:
// they would hold -0.0, which changes nothing.

template <class T>
constexpr int64_t kTile = 512 / sizeof(typename Traits<T>::Partial);

template <class T>
void ordered_tile(const T* x, int64_t rows, int64_t columns, int64_t width,
                  typename Traits<T>::Partial* result) {
  using Partial = typename Traits<T>::Partial;
  Partial lane[kSumLanes * kTile<T>];
  const int64_t live = rows < kSumLanes ? rows : kSumLanes;
  for_runs(x, live, columns, width, kSumLanes, [&](int64_t at, const T* run, int64_t n) {
    for (int64_t i = 0; i < n; ++i) lane[at + i] = partial(run[i]);
  });
  for_runs(x + live * columns, rows - live, columns, width, kSumLanes,
           [&](int64_t at, const T* run, int64_t n) {
             for (int64_t i = 0; i < n; ++i) lane[at + i] += partial(run[i]);
           });
  fold(kSumLanes, live, width, [&](int64_t to, int64_t from) { lane[to] += lane[from]; });
  std::memcpy(result, lane, width * sizeof(Partial));
}

template <class T>
void ordered(const void* data, int64_t rows, int64_t columns, void* partials) {
  const T* x = static_cast<const T*>(data);
  auto* result = static_cast<typename Traits<T>::Partial*>(partials);
  for (int64_t first = 0; first < columns; first += kTile<T>) {
    const int64_t left = columns - first;
    ordered_tile(x + first, rows, columns, left < kTile<T> ? left : kTile<T>, result + first);
  }
}

// ---- exact: Knuth's error-free addition, twice. What the first loses goes to `low`; what that
// loses, were it ever anything, is noticed. An overflow makes it NaN, which is noticed too.

constexpr int64_t kExactTile = 64;

struct Pairs {
  double high[kExactTile], low[kExactTile], lost[kExactTile];
};

NDP_INLINE void add_low(Pairs& sum, int64_t i, double x) {
  const double low = sum.low[i] + x;
  const double part = low - sum.low[i];
  sum.lost[i] += __builtin_fabs((sum.low[i] - (low - part)) + (x - part));
  sum.low[i] = low;
}

NDP_INLINE void add(Pairs& sum, int64_t i, double x) {
  const double high = sum.high[i] + x;
  const double part = high - sum.high[i];
  add_low(sum, i, (sum.high[i] - (high - part)) + (x - part));
  sum.high[i] = high;
}

template <class T>
void exact_tile(const T* x, int64_t rows, int64_t columns, int64_t width, ExactPair* pairs) {
  // Few columns: several rows side by side, but not so many that bringing them together takes
  // longer than adding them up.
  int64_t lanes = 1;
  if (width == columns)
    while (2 * lanes * width <= kExactTile && 16 * lanes <= rows) lanes *= 2;
  Pairs sum;
  for_runs(x, lanes, columns, width, lanes, [&](int64_t at, const T* run, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      sum.high[at + i] = value(run[i]);
      sum.low[at + i] = 0.0;
      sum.lost[at + i] = 0.0;
    }
  });
  for_runs(x + lanes * columns, rows - lanes, columns, width, lanes,
           [&](int64_t at, const T* run, int64_t n) {
             for (int64_t i = 0; i < n; ++i) add(sum, at + i, value(run[i]));
           });
  fold(lanes, lanes, width, [&](int64_t to, int64_t from) {
    add(sum, to, sum.high[from]);
    add_low(sum, to, sum.low[from]);
    sum.lost[to] += sum.lost[from];
  });
  for (int64_t i = 0; i < width; ++i) pairs[i] = {sum.high[i], sum.low[i], sum.lost[i]};
}

template <class T>
void exact(const void* data, int64_t rows, int64_t columns, ExactPair* pairs) {
  const T* x = static_cast<const T*>(data);
  for (int64_t first = 0; first < columns; first += kExactTile) {
    const int64_t left = columns - first;
    exact_tile(x + first, rows, columns, left < kExactTile ? left : kExactTile, pairs + first);
  }
}

template <class T>
void deposit_column(const void* data, int64_t rows, int64_t columns, Superacc& acc) {
  const T* x = static_cast<const T*>(data);
  make_room(acc, rows);
  for (int64_t row = 0; row < rows; ++row) deposit(acc, value(x[row * columns]));
}

template <class T>
constexpr SegmentKernels kKernels{ordered<T>, exact<T>, deposit_column<T>};

}  // namespace

SegmentKernels segment_kernels(Dtype dtype) {
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
