// The loops of `sum` down the columns of a matrix, compiled once for each ISA level.
#include <cstdint>
#include <cstring>

#include "inexact.hpp"
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

template <class T>
NDP_INLINE const T* row_of(const Rows& rows, int64_t row) {
  return static_cast<const T*>(rows.x) + (rows.offset ? rows.offset[row] : row * rows.stride);
}

// `n` elements as Vectors by way of read(element); the last of them may be filled up with -0.0.
template <class T, class Vector, class Read>
NDP_INLINE Vector read_some(const T* x, int64_t n, const Read& read) {
  constexpr int64_t kWidth = sizeof(Vector) / sizeof(decltype(Vector{}[0]));
  if (n >= kWidth) return read(x);
  T padded[kWidth];
  const auto padding = static_cast<typename Traits<T>::Bits>(Traits<T>::magnitude + 1);
  for (int64_t i = 0; i < kWidth; ++i) std::memcpy(padded + i, &padding, sizeof(T));
  std::memcpy(padded, x, n * sizeof(T));
  return read(padded);
}

// ---- fixed_order: every column has 64 lanes, and row i of a chunk goes to lane i mod 64.

// Rows that are read beside each other, since the processor's prefetching stops at the end of a page
// (Zen 4, 4096 columns of fp32: 20 GB/s; with 4 rows 15, with one 7).
constexpr int kStreams = 8;

// Adds `streams` rows to the lanes of `n` elements, the rows in turn.
template <int streams, class T>
NDP_INLINE void add_rows(const T* const* x, int64_t n, typename Traits<T>::Partial* lanes) {
  using Vector = decltype(partials(x[0]));
  constexpr int64_t kWidth = kBytes / sizeof(*lanes);
  const auto read = [](const T* from) __attribute__((always_inline)) { return partials(from); };
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    Vector sums = load<Vector>(lanes + i);
#pragma GCC unroll 8
    for (int k = 0; k < streams; ++k) sums += partials(x[k] + i);
    std::memcpy(lanes + i, &sums, sizeof sums);
  }
  if (i < n) {
    // The lanes are laid out with room for a whole vector after the last.
    Vector sums = load<Vector>(lanes + i);
    for (int k = 0; k < streams; ++k) sums += read_some<T, Vector>(x[k] + i, n - i, read);
    std::memcpy(lanes + i, &sums, (n - i) * sizeof *lanes);
  }
}

// The lanes that stay in the first cache while the rows that belong to them, 64 apart, are read:
// as many below each other as fit.
constexpr int64_t kLanesBytes = kColumnsBytes;

template <class T>
void chunk(const Rows& x, int64_t rows, int64_t columns, void* result) {
  using Partial = typename Traits<T>::Partial;
  constexpr int64_t kRoom = kLanesBytes / sizeof(Partial);
  constexpr int64_t kWidth = kBytes / sizeof(Partial);
  constexpr int kLevels = 7;  // up to 64 groups of lanes

  int64_t together = kSumLanes;  // lanes in a group
  while (together * columns > kRoom) together /= 2;
  const int64_t groups = kSumLanes / together;
  const int64_t width = together * columns;
  // Rows without gaps between them are one long row.
  const bool dense = x.offset == nullptr && x.stride == columns;

  alignas(64) Partial lanes[kRoom + kWidth];
  alignas(64) Partial waiting[kLevels][kRoom + kWidth];
  int level = 0;
  for (int64_t turn = 0; turn < groups; ++turn) {
    // Group after group such that the halves that are folded first come one after the other: the
    // bits of `turn` in reverse.
    int64_t group = 0;
    for (int64_t bit = 1; bit < groups; bit *= 2) group = group * 2 + ((turn & bit) != 0);
    for (int64_t i = 0; i < width; ++i) lanes[i] = -Partial{0};
    for (int64_t first = group * together; first < rows; first += kStreams * kSumLanes) {
      const int64_t last = first + (kStreams - 1) * kSumLanes;  // of the streams
      const bool whole = last + together <= rows;
      const T* from[kStreams];
      if (whole && dense) {
        for (int k = 0; k < kStreams; ++k) from[k] = row_of<T>(x, first + k * kSumLanes);
        add_rows<kStreams>(from, width, lanes);
      } else if (whole) {
        for (int64_t j = 0; j < together; ++j) {
          for (int k = 0; k < kStreams; ++k) from[k] = row_of<T>(x, first + j + k * kSumLanes);
          add_rows<kStreams>(from, columns, lanes + j * columns);
        }
      } else {
        for (int64_t start = first; start < rows && start <= last; start += kSumLanes)
          for (int64_t j = 0; j < together && start + j < rows; ++j) {
            from[0] = row_of<T>(x, start + j);
            add_rows<1>(from, columns, lanes + j * columns);
          }
      }
    }
    level = 0;
    for (; turn >> level & 1; ++level)
      for (int64_t i = 0; i < width; ++i) lanes[i] = waiting[level][i] + lanes[i];
    std::memcpy(waiting[level], lanes, width * sizeof(Partial));
  }
  Partial* lane = waiting[level];
  for (int64_t half = together / 2; half >= 1; half /= 2)
    for (int64_t i = 0; i < half * columns; ++i) lane[i] += lane[i + half * columns];
  std::memcpy(result, lane, columns * sizeof(Partial));
}

// ---- exact

// A block of rows, which comes from the second cache when it has to be added again.
constexpr int64_t kBlockBytes = 1 << 20;
constexpr int64_t kMostVectors = kExactColumns / kDoubles + 1;
constexpr int kRowBits = 12;
constexpr int64_t kMostRows = 1 << kRowBits;

// Calls body(vector, elements left, rows, count, column) for all vectors of columns, kStreams rows at
// a time, as far apart as the block allows, and then the rows that are left one at a time.
template <class T, class Body>
NDP_INLINE void for_streams(const Rows& x, int64_t first, int64_t rows, int64_t columns,
                            const Body& body) {
  const int64_t apart = rows / kStreams;
  for (int64_t row = first; row < first + apart; ++row) {
    const T* from[kStreams];
    for (int64_t k = 0; k < kStreams; ++k) from[k] = row_of<T>(x, row + k * apart);
    for (int64_t i = 0; i < columns; i += kDoubles)
      body(i / kDoubles, columns - i, from, kStreams, i);
  }
  for (int64_t row = first + kStreams * apart; row < first + rows; ++row) {
    const T* from[1] = {row_of<T>(x, row)};
    for (int64_t i = 0; i < columns; i += kDoubles) body(i / kDoubles, columns - i, from, 1, i);
  }
}

template <class T>
NDP_INLINE Doubles read_doubles(const T* x, int64_t left) {
  return read_some<T, Doubles>(
      x, left, [](const T* from) __attribute__((always_inline)) { return doubles(from); });
}

// As plain_total of sum_isa.cpp, for each column; adds to `sums`. False: they are of no use.
template <class T>
bool plain_columns(const Rows& x, int64_t first, int64_t rows, int64_t columns, Doubles* sums) {
  clear_inexact();
  for_streams<T>(
      x, first, rows, columns,
      [&](int64_t vector, int64_t left, const T* const* from, int64_t count, int64_t i)
          __attribute__((always_inline)) {
            if (count == kStreams && left >= kDoubles) {
              Doubles sum = sums[vector];
#pragma GCC unroll 8
              for (int k = 0; k < kStreams; k += 2)
                sum += doubles(from[k] + i) + doubles(from[k + 1] + i);
              sums[vector] = sum;
            } else {
              for (int64_t k = 0; k < count; ++k) sums[vector] += read_doubles(from[k] + i, left);
            }
          });
  return !inexact_after(sums);
}

// As split_totals of sum_isa.cpp, for each column: here a register takes one element of every row.
template <class T, int kParts>
bool split_columns(const Rows& x, int64_t first, int64_t rows, int64_t columns, int exponent,
                   Doubles (*totals)[kParts]) {
  constexpr int kSpan = (kParts - 1) * (52 - kRowBits) + 51 - kRowBits;
  if (exponent < kSpan - 1074) exponent = kSpan - 1074;
  if (exponent + kRowBits + 1 > 1022) return false;

  Doubles start[kParts];
  for (int i = 0; i < kParts; ++i) {
    const int unit = exponent + kRowBits - 51 - i * (52 - kRowBits);
    start[i] = spread(1.5 * __builtin_bit_cast(double, static_cast<uint64_t>(unit + 52 + 1023) << 52));
  }
  const int64_t vectors = (columns + kDoubles - 1) / kDoubles;
  for (int64_t vector = 0; vector < vectors; ++vector)
    for (int i = 0; i < kParts; ++i) totals[vector][i] = start[i];
  Words left_binade{}, left_rest{};
  for_streams<T>(
      x, first, rows, columns,
      [&](int64_t vector, int64_t left, const T* const* from, int64_t count, int64_t at)
          __attribute__((always_inline)) {
            Doubles sums[kParts];
            for (int i = 0; i < kParts; ++i) sums[i] = totals[vector][i];
            const auto take = [&](Doubles rest) __attribute__((always_inline)) {
#pragma GCC unroll 3
              for (int i = 0; i < kParts; ++i) {
                const Doubles next = sums[i] + rest;
                rest -= next - sums[i];
                sums[i] = next;
                if (i + 1 < kParts) left_binade |= (Words)next ^ (Words)start[i];
              }
              left_rest |= (Words)rest;
            };
            if (count == kStreams && left >= kDoubles) {
#pragma GCC unroll 8
              for (int k = 0; k < kStreams; ++k) take(doubles(from[k] + at));
            } else {
              for (int64_t k = 0; k < count; ++k) take(read_doubles(from[k] + at, left));
            }
            for (int i = 0; i < kParts; ++i) totals[vector][i] = sums[i];
          });
  uint64_t bad = 0;
  for (int lane = 0; lane < kDoubles; ++lane)
    bad |= (left_binade[lane] & 0xfff0000000000000) | (left_rest[lane] & 0x7fffffffffffffff);
  for (int64_t vector = 0; vector < vectors; ++vector)
    for (int i = 0; i < kParts; ++i) totals[vector][i] -= start[i];
  return bad == 0;
}

void use_acc(ExactColumns& sums, int64_t columns) {
  if (sums.acc_used) return;
  for (int64_t column = 0; column < columns; ++column) clear(sums.acc[column]);
  sums.acc_used = true;
}

// What the doubles hold goes into the digits.
void flush(ExactColumns& sums, int64_t columns) {
  if (!sums.sum_used) return;
  use_acc(sums, columns);
  for (int64_t column = 0; column < columns; ++column) {
    make_room(sums.acc[column], 2);
    deposit(sums.acc[column], sums.sum[column]);
    if (sums.low_used) deposit(sums.acc[column], sums.low[column]);
  }
  sums.sum_used = sums.low_used = false;
}

// Adds on to the sums so far if that takes no rounding, else from zero.
template <class T>
bool add_plainly(const Rows& x, int64_t first, int64_t rows, int64_t columns, ExactColumns& sums) {
  Doubles tried[kMostVectors];
  const int64_t vectors = (columns + kDoubles - 1) / kDoubles;
  if (sums.low_used) flush(sums, columns);
  for (;;) {
    for (int64_t vector = 0; vector < vectors; ++vector)
      tried[vector] = spread(-0.0);  // so that -0.0 alone gives -0.0
    if (sums.sum_used) std::memcpy(tried, sums.sum, columns * sizeof(double));
    if (plain_columns<T>(x, first, rows, columns, tried)) break;
    if (!sums.sum_used) return false;
    flush(sums, columns);
  }
  std::memcpy(sums.sum, tried, columns * sizeof(double));
  sums.sum_used = true;
  return true;
}

// Tries the exponent that served last, then the block's own.
template <class T, int kParts>
bool add_split(const Rows& x, int64_t first, int64_t rows, int64_t columns, ExactColumns& sums) {
  Doubles totals[kMostVectors][kParts];
  if (!split_columns<T, kParts>(x, first, rows, columns, sums.exponent, totals)) {
    typename Traits<T>::Bits most = 0;
    for (int64_t row = first; row < first + rows; ++row) {
      const auto of_row = largest(row_of<T>(x, row), columns);
      most = of_row > most ? of_row : most;
    }
    if (most >= Traits<T>::infinity) return false;
    const int exponent = exponent_above<T>(most);
    if (exponent == sums.exponent) return false;
    sums.exponent = exponent;
    if (!split_columns<T, kParts>(x, first, rows, columns, exponent, totals)) return false;
  }
  const auto total = [&](int64_t column, int part) {
    return totals[column / kDoubles][part][column % kDoubles];
  };
  if (kParts == 2 && !sums.sum_used && !sums.acc_used) {
    for (int64_t column = 0; column < columns; ++column) {
      sums.sum[column] = total(column, 0);
      sums.low[column] = total(column, 1);
    }
    sums.sum_used = sums.low_used = true;
    return true;
  }
  use_acc(sums, columns);
  for (int64_t column = 0; column < columns; ++column) {
    make_room(sums.acc[column], kParts);
    for (int i = 0; i < kParts; ++i) deposit(sums.acc[column], total(column, i));
  }
  return true;
}

template <class T>
void exact_block(const Rows& x, int64_t first, int64_t rows, int64_t columns, ExactColumns& sums) {
  constexpr int kBlocksAtALevel = 4;
  if (sums.level != sums.base_level && ++sums.since_base == kBlocksAtALevel) {
    sums.level = sums.base_level;
    sums.since_base = 0;
  }
  if constexpr (sizeof(T) < sizeof(double)) {
    if (sums.level == 0) {
      if (add_plainly<T>(x, first, rows, columns, sums)) return;
      sums.level = 1;
    }
  }
  if (sums.level == 1) {
    if (add_split<T, 2>(x, first, rows, columns, sums)) return;
    sums.level = 2;
  }
  if (sums.level == 2) {
    if (add_split<T, 3>(x, first, rows, columns, sums)) return;
    sums.level = 3;
  }
  use_acc(sums, columns);
  for (int64_t column = 0; column < columns; ++column) {
    Superacc& acc = sums.acc[column];
    make_room(acc, rows);
    for (int64_t row = first; row < first + rows; ++row)
      deposit(acc, value(row_of<T>(x, row)[column]));
  }
}

template <class T>
void exact(const Rows& x, int64_t rows, int64_t columns, ExactColumns& sums) {
  int64_t block = kBlockBytes / (columns * static_cast<int64_t>(sizeof(T)));
  if (block > kMostRows) block = kMostRows;
  for (int64_t row = 0; row < rows; row += block)
    exact_block<T>(x, row, rows - row < block ? rows - row : block, columns, sums);
}

template <class T>
constexpr ColumnKernels kKernels{chunk<T>, exact<T>};

}  // namespace

ColumnKernels column_kernels(Dtype dtype) {
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
