// What the variants of `scatter` share: elements, indices in blocks, rows grouped by destination.
// For scatter*.cpp, not for files that are compiled once a level.
#pragma once

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>

#include "narrow.hpp"
#include "scatter.hpp"
#include "workers.hpp"

namespace ndp::scattering {

struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

template <class T>
struct Element;
template <>
struct Element<double> {
  using Sum = double;  // what `ordered` adds in
  using Bits = uint64_t;
  static constexpr const Format& format = kFormat64;
};
template <>
struct Element<float> {
  using Sum = float;
  using Bits = uint32_t;
  static constexpr const Format& format = kFormat32;
};
template <>
struct Element<Bf16> {
  using Sum = float;
  using Bits = uint16_t;
  static constexpr const Format& format = kFormatBf16;
};
template <>
struct Element<F16> {
  using Sum = float;
  using Bits = uint16_t;
  static constexpr const Format& format = kFormat16;
};

inline double value(double x) { return x; }
inline float value(float x) { return x; }
inline float value(Bf16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}
inline float value(F16 x) {
  // As in sum_lanes.hpp: the multiplication makes subnormals normal.
  const uint32_t magnitude = x.bits & 0x7fff;
  const float scaled = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00 ? 0x7f800000 : 0;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, scaled) | special | sign);
}

template <class T>
T from_bits(uint64_t bits) {
  return __builtin_bit_cast(T, static_cast<typename Element<T>::Bits>(bits));
}

template <class T>
uint64_t bits_of(T x) {
  return __builtin_bit_cast(typename Element<T>::Bits, x);
}

// x rounded once; NaN becomes the positive quiet one.
template <class T>
T rounded(double x) {
  if constexpr (sizeof(T) > 2)
    return x != x ? from_bits<T>(Element<T>::format.quiet_nan) : static_cast<T>(x);
  else
    return from_bits<T>(round_double(x, Element<T>::format));
}
template <class T>
T rounded(float x) {
  if constexpr (std::is_same_v<T, Bf16>) {
    // The upper half of a float32; a carry into the exponent is as it should be.
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    const uint32_t up = 0x7fff + (bits >> 16 & 1);
    return x != x ? Bf16{0x7fc0} : Bf16{static_cast<uint16_t>((bits + up) >> 16)};
  } else if constexpr (sizeof(T) == sizeof(float)) {
    return x != x ? from_bits<T>(Element<T>::format.quiet_nan) : x;
  } else {
    return rounded<T>(static_cast<double>(x));
  }
}

template <class T>
void round_all(const typename Element<T>::Sum* sums, T* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = rounded<T>(sums[i]);
}

// Elements that are worth a thread of their own.
constexpr int64_t kWorkerElements = 16384;

// Elements that a worker adds to a table of its own at a time, in `exact` and `fixed_point`; such a
// table must be worth its making.
constexpr int64_t kPiece = 65536;

inline int table_workers(int64_t n, int64_t cells, int threads) {
  return workers_for(n / std::max(cells, kWorkerElements), threads);
}

// A table of more bytes lies outside of the nearer caches.
constexpr int64_t kFarBytes = 1 << 19;

// Part `part` of `parts` of the cells, by whole cache lines.
struct Range {
  int64_t low, high;
};
inline Range part_of(int64_t cells, int64_t part, int64_t parts) {
  const int64_t lines = (cells + 63) / 64;
  return {std::min(cells, lines * part / parts * 64),
          std::min(cells, lines * (part + 1) / parts * 64)};
}

// A scatter with the kernels for it. Indices are checked on the way, block by block: nothing is
// written to where a bad one says.
template <class T>
class Scattering {
 public:
  Scattering(const Scatter& given, const ScatterKernels& with, int most_threads)
      : job(given), kernels(with), threads(most_threads) {}

  const Scatter& job;
  const ScatterKernels& kernels;
  const int threads;

  T* out() const { return static_cast<T*>(job.out); }
  const T* source(int64_t element) const {
    return static_cast<const T*>(job.source) + element;
  }
  int64_t cells() const { return job.destinations * job.columns; }
  int64_t elements() const { return job.n * job.columns; }

  // body(index, position, count) for blocks of the indices [first, end), up to the block with the
  // first bad one, which is noted. Whether there was none.
  template <class Body>
  bool each_block(int64_t first, int64_t end, const Body& body) {
    const int64_t high = job.grid.size > 0 ? job.grid.size : job.destinations;
    const int64_t low = job.wrap ? -high : 0;
    for (int64_t i = first; i < end; i += kBlock) {
      const int64_t* index = job.index + i;
      const int64_t count = std::min(kBlock, end - i);
      const int seen = kernels.look(index, count, low, high - 1);
      if (seen & kOutOfRange) {
        note_bad(i + check_indices(index, count, low, high, nullptr));
        return false;
      }
      int64_t wrapped[kBlock];
      if (seen & kNegative) {
        check_indices(index, count, low, high, wrapped);
        index = wrapped;
      }
      if (job.grid.size > 0) {
        kernels.locate(index, count, i, job.grid, wrapped);
        index = wrapped;
      }
      body(index, i, count);
    }
    return true;
  }

  // body(index, source, count), columns being 1: the elements with indices in [low, high), which
  // count from low.
  template <class Body>
  bool each_block(int64_t first, int64_t end, int64_t low, int64_t high, const Body& body) {
    return each_block(first, end, [&](const int64_t* index, int64_t position, int64_t count) {
      if (is_all(low, high)) {
        body(index, source(position), count);
        return;
      }
      int64_t kept_index[kBlock + 8];
      T kept[kBlock + 8];
      body(kept_index, kept, kernels.keep_between(index, source(position), count, low, high,
                                                  kept_index, kept));
    });
  }

  // The same where the body looks at the indices itself: it is given all of them at once, and takes
  // those up to the first that is not in range, or fewer; their number. After that it is given one
  // block as above, all of which it takes.
  template <class Body>
  void each_run(int64_t first, int64_t end, int64_t low, int64_t high, const Body& body) {
    if (job.grid.size > 0 || !is_all(low, high)) {
      each_block(first, end, low, high, body);
      return;
    }
    while (first < end) {
      first += body(job.index + first, source(first), end - first);
      const int64_t next = std::min(end, first + kBlock);
      if (!each_block(first, next, low, high, body)) return;
      first = next;
    }
  }

  void note_bad(int64_t position) {
    int64_t seen = bad_;
    while (position < seen && !bad_.compare_exchange_weak(seen, position)) {
    }
  }

  // The position of the first bad index that any worker met, or -1.
  int64_t bad() const { return bad_ == kNone ? -1 : bad_.load(); }

 private:
  static constexpr int64_t kNone = INT64_MAX;
  static constexpr int64_t kBlock = 1024;

  bool is_all(int64_t low, int64_t high) const { return low == 0 && high == job.destinations; }

  std::atomic<int64_t> bad_{kNone};
};

// Positions sorted by destination, those of one destination in their order.
struct Grouped {
  std::vector<int64_t> start;  // of each destination in `order`, and the end
  std::vector<int64_t> order;
};

// Empty where there is a bad index.
template <class T>
Grouped grouped(Scattering<T>& job) {
  Grouped found;
  const int64_t destinations = job.job.destinations;
  found.start.resize(destinations + 2);
  int64_t* counts = found.start.data() + 2;  // one place further, so that placing moves them back
  job.each_block(0, job.job.n, [&](const int64_t* index, int64_t, int64_t count) {
    for (int64_t i = 0; i < count; ++i) ++counts[index[i]];
  });
  if (job.bad() >= 0) return {};
  int64_t* next = found.start.data() + 1;
  for (int64_t d = 1; d <= destinations; ++d) next[d] += next[d - 1];
  found.order.resize(job.job.n);
  job.each_block(0, job.job.n, [&](const int64_t* index, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) found.order[next[index[i]]++] = first + i;
  });
  return found;
}

// body(cells, group): the rows that meet in one destination, kRowWidth columns or what is left, and
// the cells they belong to. Destinations without rows are left out.
template <class T, class Body>
void each_group(Scattering<T>& job, const Body& body) {
  const Grouped rows = grouped(job);
  if (job.bad() >= 0 || job.elements() == 0) return;
  const int64_t columns = job.job.columns;
  const int workers = workers_for(job.elements() / kWorkerElements, job.threads);
  // Pieces of the destinations with about the same number of rows each, and of the columns.
  const int64_t pieces = workers == 1 ? 1 : std::min<int64_t>(workers * int64_t{8}, job.job.n);
  const int64_t bands = (columns + kRowWidth - 1) / kRowWidth;
  const auto begin = [&](int64_t piece) {
    if (piece == pieces) return job.job.destinations;
    const auto from = rows.start.begin();
    return std::lower_bound(from, from + job.job.destinations, job.job.n * piece / pieces) - from;
  };
  each_task(pieces * bands, workers, [&](int, int64_t task) {
    const int64_t column = task % bands * kRowWidth;
    const int64_t end = begin(task / bands + 1);
    for (int64_t d = begin(task / bands); d < end; ++d) {
      const int64_t first = rows.start[d], count = rows.start[d + 1] - first;
      if (count == 0) continue;
      body(job.out() + d * columns + column,
           RowGroup{job.source(column), &rows.order[first], count, columns,
                    std::min(kRowWidth, columns - column)});
    }
  });
}

// Every NaN becomes the positive quiet one.
template <class T>
void make_nans_equal(Scattering<T>& job) {
  constexpr int64_t kPiece = 65536;
  const int64_t cells = job.cells();
  const int64_t pieces = (cells + kPiece - 1) / kPiece;
  each_task(pieces, workers_for(pieces / 4, job.threads), [&](int, int64_t piece) {
    T* out = job.out() + piece * kPiece;
    const int64_t count = std::min(kPiece, cells - piece * kPiece);
    const uint64_t infinity = Element<T>::format.infinity, sign = Element<T>::format.sign;
    for (int64_t i = 0; i < count; ++i)
      if ((bits_of(out[i]) & ~sign) > infinity) out[i] = from_bits<T>(Element<T>::format.quiet_nan);
  });
}

// ---- the variants

template <class T>
void scatter_exact(Scattering<T>& job);
template <class T>
void scatter_fixed_point(Scattering<T>& job);

}  // namespace ndp::scattering
