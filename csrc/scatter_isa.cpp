// The loops of `scatter`, compiled once for each ISA level.
#include <cstdint>
#include <cstring>

#include "inexact.hpp"
#include "scatter.hpp"
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
using SumOf = typename Traits<T>::Partial;

// The first n elements of x in another type, exactly: in `room`, or where they are.
template <class T>
NDP_INLINE const float* in_floats(const T* x, int64_t n, float* room) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return x;
  } else {
    int64_t i = 0;
    for (; i + kFloats <= n; i += kFloats) {
      const Floats some = floats(x + i);
      std::memcpy(room + i, &some, sizeof some);
    }
    for (; i < n; ++i) room[i] = narrow_value(x[i]);
    return room;
  }
}
template <class T>
NDP_INLINE const double* in_doubles(const T* x, int64_t n, double* room) {
  if constexpr (sizeof(T) == sizeof(double)) {
    return x;
  } else {
    int64_t i = 0;
    for (; i + kDoubles <= n; i += kDoubles) {
      const Doubles some = doubles(x + i);
      std::memcpy(room + i, &some, sizeof some);
    }
    for (; i < n; ++i) room[i] = value(x[i]);
    return room;
  }
}
NDP_INLINE const double* in_sums(const double* x, int64_t, double*) { return x; }
template <class T>
NDP_INLINE const float* in_sums(const T* x, int64_t n, float* room) {
  return in_floats(x, n, room);
}

// What is converted and added at a time.
constexpr int64_t kBlock = 1024;

int look(const int64_t* index, int64_t n, int64_t low, int64_t last) {
  uint64_t outside = 0, negative = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t at = static_cast<uint64_t>(index[i]);
    outside |= (at - static_cast<uint64_t>(low)) | (static_cast<uint64_t>(last) - at);
    negative |= at;
  }
  return (outside >> 63 ? kOutOfRange : 0) | (negative >> 63 ? kNegative : 0);
}

void locate(const int64_t* index, int64_t n, int64_t first, const Grid& grid, int64_t* cells) {
  int64_t outer = first / grid.span, place = first % grid.span, column = first % grid.inner;
  for (int64_t i = 0; i < n;) {
    // As far as this run of columns goes.
    const int64_t run = grid.inner - column < n - i ? grid.inner - column : n - i;
    const int64_t base = outer * grid.size * grid.inner + column;
    for (int64_t j = 0; j < run; ++j) cells[i + j] = index[i + j] * grid.inner + base + j;
    i += run;
    place += run;
    column = 0;
    if (place == grid.span) {
      place = 0;
      ++outer;
    }
  }
}

template <class T>
int64_t keep_between(const int64_t* index, const void* data, int64_t n, int64_t low, int64_t high,
                     int64_t* kept_index, void* kept_data) {
  const T* x = static_cast<const T*>(data);
  T* kept = static_cast<T*>(kept_data);
  const uint64_t width = static_cast<uint64_t>(high - low);
  int64_t count = 0;
  int64_t j = 0;
#if NDP_VECTOR_BYTES == 64
  if constexpr (sizeof(T) > 2) {
    const __m512i lowest = _mm512_set1_epi64(low);
    const __m512i wide = _mm512_set1_epi64(static_cast<int64_t>(width));
    for (; j + 8 <= n; j += 8) {
      const __m512i at = _mm512_sub_epi64(_mm512_loadu_si512(index + j), lowest);
      const __mmask8 inside = _mm512_cmplt_epu64_mask(at, wide);
      _mm512_storeu_si512(kept_index + count, _mm512_maskz_compress_epi64(inside, at));
      if constexpr (sizeof(T) == sizeof(double))
        _mm512_storeu_pd(kept + count, _mm512_maskz_compress_pd(inside, _mm512_loadu_pd(x + j)));
      else
        _mm256_storeu_ps(kept + count, _mm256_maskz_compress_ps(inside, _mm256_loadu_ps(x + j)));
      count += __builtin_popcount(inside);
    }
  }
#endif
  for (; j < n; ++j) {
    const uint64_t at = static_cast<uint64_t>(index[j] - low);
    kept_index[count] = static_cast<int64_t>(at);
    kept[count] = x[j];
    count += at < width;
  }
  return count;
}

// ---- ordered

template <class T>
void widen(const void* data, int64_t n, void* to) {
  const T* x = static_cast<const T*>(data);
  auto* sums = static_cast<SumOf<T>*>(to);
  const SumOf<T>* read = in_sums(x, n, sums);
  if (read != sums) std::memcpy(sums, read, n * sizeof *sums);
}

// Calls step(j) for j < n while index[j] lies in [0, cells); how many did. There are `known` indices.
// The stream of indices and that of `source` are fetched ahead, and the cells of a far table.
template <bool kFar, class Cell, class T, class Step>
NDP_INLINE int64_t for_cells(const Cell* table, const int64_t* index, const T* source, int64_t n,
                             int64_t known, int64_t cells, const Step& step) {
  constexpr int64_t kAhead = kFar ? 256 : 512, kEarly = 64, kLine = 64 / sizeof *index;
  const auto one = [&](int64_t j) __attribute__((always_inline)) {
    if (static_cast<uint64_t>(index[j]) >= static_cast<uint64_t>(cells)) return false;
    // Not looked at yet: no place that may be reckoned with as a pointer.
    if (kFar && j + kEarly < known)
      __builtin_prefetch(reinterpret_cast<const void*>(
                             reinterpret_cast<uintptr_t>(table) +
                             static_cast<uintptr_t>(index[j + kEarly]) * sizeof(Cell)),
                         1);
    step(j);
    return true;
  };
  int64_t j = 0;
  for (; j + kLine <= n; j += kLine) {
    __builtin_prefetch(index + j + kAhead);
    if (j * sizeof(T) % 64 == 0) __builtin_prefetch(source + j + kAhead);
#pragma GCC unroll 8
    for (int64_t k = 0; k < kLine; ++k)
      if (!one(j + k)) return j + k;
  }
  for (; j < n; ++j)
    if (!one(j)) return j;
  return n;
}

template <class T, bool kFar>
NDP_INLINE int64_t add_all(SumOf<T>* __restrict sums, const int64_t* index, const T* source,
                           int64_t n, int64_t cells) {
  SumOf<T> room[kBlock];
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t count = n - i < kBlock ? n - i : kBlock;
    const int64_t* at = index + i;
    const auto* x = in_sums(source + i, count, room);
    const auto step = [&](int64_t j) __attribute__((always_inline)) { sums[at[j]] += x[j]; };
    const int64_t added = for_cells<kFar>(sums, at, source + i, count, n - i, cells, step);
    if (added < count) return i + added;
  }
  return n;
}

template <class T>
int64_t add(void* to, const int64_t* index, const void* data, int64_t n, int64_t cells, bool far) {
  auto* sums = static_cast<SumOf<T>*>(to);
  const T* source = static_cast<const T*>(data);
  return far ? add_all<T, true>(sums, index, source, n, cells)
             : add_all<T, false>(sums, index, source, n, cells);
}

// The same where each element keeps its column: `rows` rows of them, of which those of the patch's
// columns are added.
template <class T, bool kFar>
NDP_INLINE int64_t add_below(SumOf<T>* __restrict sums, const int64_t* index, const T* source,
                             int64_t rows, const Patch& patch) {
  constexpr int64_t kLine = 64 / sizeof *index;
  const int64_t columns = patch.columns, width = patch.end - patch.first;
  const int64_t ahead = 512 / width + 1, early = 64 / width + 1;  // in rows
  const uint64_t size = static_cast<uint64_t>(patch.high);
  SumOf<T> room[kBlock];
  for (int64_t row = 0; row < rows; ++row) {
    const bool fetched = kFar && row + early < rows;
    for (int64_t first = patch.first; first < patch.end; first += kBlock) {
      const int64_t count = patch.end - first < kBlock ? patch.end - first : kBlock;
      const int64_t start = row * columns + first;
      const int64_t* at = index + start;
      const auto* x = in_sums(source + start, count, room);
      const auto one = [&](int64_t j) __attribute__((always_inline)) {
        if (static_cast<uint64_t>(at[j]) >= size) return false;
        if (fetched)
          __builtin_prefetch(
              reinterpret_cast<const void*>(
                  reinterpret_cast<uintptr_t>(sums + first + j) +
                  static_cast<uintptr_t>(at[j + early * columns]) * columns * sizeof *sums),
              1);
        sums[at[j] * columns + first + j] += x[j];
        return true;
      };
      int64_t j = 0;
      for (; j + kLine <= count; j += kLine) {
        __builtin_prefetch(at + j + ahead * columns);
        if (j * sizeof(T) % 64 == 0) __builtin_prefetch(source + start + j + ahead * columns);
#pragma GCC unroll 8
        for (int64_t k = 0; k < kLine; ++k)
          if (!one(j + k)) return start + j + k;
      }
      for (; j < count; ++j)
        if (!one(j)) return start + j;
    }
  }
  return rows * columns;
}

template <class T>
int64_t add_columns(void* to, const int64_t* index, const void* data, int64_t rows,
                    const Patch& patch, bool far) {
  auto* sums = static_cast<SumOf<T>*>(to);
  const T* source = static_cast<const T*>(data);
  return far ? add_below<T, true>(sums, index, source, rows, patch)
             : add_below<T, false>(sums, index, source, rows, patch);
}

// Rows to look ahead: they lie anywhere, and the prefetcher cannot know.
constexpr int64_t kAhead = 4;

template <class T>
void add_patch(void* to, const int64_t* index, const void* data, int64_t n, const Patch& patch) {
  auto* __restrict sums = static_cast<T*>(to) + patch.first;
  const T* __restrict source = static_cast<const T*>(data) + patch.first;
  const int64_t width = patch.end - patch.first;
  constexpr int64_t kSome = 256, kLine = 64 / sizeof(T), kMostLines = 4;
  const int64_t fetched = width < kMostLines * kLine ? width : kMostLines * kLine;
  for (int64_t first = 0; first < n; first += kSome) {
    const int64_t some = n - first < kSome ? n - first : kSome;
    // The rows of this patch, found without a branch, which would go wrong for every second row. To
    // fetch a row of another patch ahead would take it from the processor that is adding to it.
    int64_t mine[kSome], count = 0;
    for (int64_t i = first; i < first + some; ++i) {
      mine[count] = i;
      count += (index[i] >= patch.low) & (index[i] < patch.high);
    }
    for (int64_t k = 0; k < count; ++k) {
      if (k + kAhead < count) {
        const int64_t ahead = mine[k + kAhead];
        for (int64_t c = 0; c < fetched; c += kLine) {
          __builtin_prefetch(sums + index[ahead] * patch.columns + c, 1);
          __builtin_prefetch(source + ahead * patch.columns + c);
        }
      }
      T* __restrict row = sums + index[mine[k]] * patch.columns;
      const T* __restrict x = source + mine[k] * patch.columns;
      for (int64_t c = 0; c < width; ++c) row[c] += x[c];
    }
  }
}

template <class T>
const T* row_of(const RowGroup& group, int64_t k) {
  const T* source = static_cast<const T*>(group.source);
  const int64_t ahead = k + kAhead < group.count ? k + kAhead : k;
  __builtin_prefetch(source + group.order[ahead] * group.columns);
  return source + group.order[k] * group.columns;
}

template <class T>
void add_group(void* to, const RowGroup& group) {
  auto* __restrict sums = static_cast<SumOf<T>*>(to);
  SumOf<T> room[kRowWidth];
  for (int64_t k = 0; k < group.count; ++k) {
    const auto* x = in_sums(row_of<T>(group, k), group.width, room);
    for (int64_t c = 0; c < group.width; ++c) sums[c] += x[c];
  }
}

}  // namespace

#include "scatter_exact_lanes.hpp"

namespace {

// ---- fixed_point

template <class T>
double largest_finite(const void* data, int64_t n, bool* specials) {
  using Bits = typename Traits<T>::Bits;
  const T* x = static_cast<const T*>(data);
  Bits most = largest(x, n);
  if (most >= Traits<T>::infinity) {
    *specials = true;
    most = 0;
    for (int64_t i = 0; i < n; ++i) {
      Bits bits;
      std::memcpy(&bits, x + i, sizeof bits);
      bits &= Traits<T>::magnitude;
      if (bits < Traits<T>::infinity && bits > most) most = bits;
    }
  }
  T found;
  std::memcpy(&found, &most, sizeof found);
  return value(found);
}

template <class T>
void fix(const void* data, int64_t n, const double (&scale)[2], int64_t* fixed) {
  const T* source = static_cast<const T*>(data);
  double room[kBlock];
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t count = n - i < kBlock ? n - i : kBlock;
    const double* x = in_doubles(source + i, count, room);
    for (int64_t j = 0; j < count; ++j) {
      // Beyond 2^52 every number is whole; up to there, adding 2^52 rounds to a whole number.
      const double scaled = x[j] * scale[0] * scale[1];
      const double whole = __builtin_copysign(0x1p52, scaled);
      const double rounded = (scaled + whole) - whole;
      const double magnitude = __builtin_fabs(scaled);
      const double kept = magnitude < 0x1p52 ? rounded : scaled;
      fixed[i + j] = static_cast<int64_t>(magnitude < 0x1p63 ? kept : 0.0);
    }
  }
}

template <class T>
constexpr auto patch_kernel() {
  if constexpr (sizeof(T) == sizeof(SumOf<T>))
    return add_patch<T>;
  else
    return nullptr;
}

template <class T>
constexpr ScatterKernels kKernels{
    look,
    locate,
    keep_between<T>,
    widen<T>,
    add<T>,
    add_columns<T>,
    patch_kernel<T>(),
    add_group<T>,
    add_exactly<T>,
    add_pairs<T>,
    add_group_exactly<T>,
    largest_finite<T>,
    fix<T>,
};

}  // namespace

ScatterKernels scatter_kernels(Dtype dtype) {
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
