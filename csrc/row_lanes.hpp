// What the row-wise kernels share: rows read as the type they are computed in, their sums in the
// fixed_order format (docs/ops.md), and rows written back. Included inside the namespace of an ISA
// level, after sum_lanes.hpp.
//
// P is double for rows of fp64 and float for the others. Rows are worked through kSumLanes elements
// at a time; what lies beyond the last element is computed with zeros and left out of sums.

namespace {

typedef uint32_t HalfWords __attribute__((vector_size(kBytes)));

template <class P>
struct Lanes;
template <>
struct Lanes<float> {
  using Vector = Floats;
  using Words = HalfWords;
};
template <>
struct Lanes<double> {
  using Vector = Doubles;
  using Words = ndp::NDP_ISA::Words;
};
template <class P>
using VectorOf = typename Lanes<P>::Vector;
template <class P>
using WordsOf = typename Lanes<P>::Words;
template <class P>
constexpr int kWidth = kBytes / sizeof(P);

template <class P>
NDP_INLINE VectorOf<P> everywhere(P x) {
  return x - VectorOf<P>{};
}

template <class P>
NDP_INLINE void store(P* to, VectorOf<P> x) {
  std::memcpy(to, &x, sizeof x);
}

// To a multiple of the vector's size, past the caches where the level can: such a line is not read
// before it is written. Other threads may not see it before `end_past`.
template <class P>
NDP_INLINE void store_past(P* to, VectorOf<P> x) {
#if NDP_VECTOR_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)x);
#elif NDP_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)x);
#elif NDP_VECTOR_BYTES == 16
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)x);
#else
  store<P>(to, x);
#endif
}
NDP_INLINE void end_past() {
#if NDP_VECTOR_BYTES
  _mm_sfence();
#endif
}

// NaN becomes the positive quiet NaN: which of two NaNs an operation passes on is up to compilers.
template <class P>
NDP_INLINE VectorOf<P> tidy(VectorOf<P> x) {
  return x == x ? x : everywhere<P>(static_cast<P>(__builtin_nan("")));
}
NDP_INLINE float tidy_one(float x) { return x == x ? x : __builtin_nanf(""); }
NDP_INLINE double tidy_one(double x) { return x == x ? x : __builtin_nan(""); }

NDP_INLINE int64_t whole_rows(int64_t n) { return n - n % kSumLanes; }
NDP_INLINE int64_t padded(int64_t n) { return whole_rows(n + kSumLanes - 1); }

// n elements: those before `split` lie at whole, the last (n % kSumLanes) and zeros lie at rest.
template <class P>
struct Row {
  const P* whole;
  int64_t split;
  const P* rest;
  NDP_INLINE const P* at(int64_t i) const { return i < split ? whole + i : rest; }
};

// scratch: padded(n) elements, which the row may live in.
template <class P>
NDP_INLINE Row<P> read_row(const P* x, int64_t n, P* scratch) {
  const int64_t split = whole_rows(n);
  if (split < n) {
    for (int lane = 0; lane < kSumLanes; ++lane) scratch[lane] = 0;
    std::memcpy(scratch, x + split, (n - split) * sizeof(P));
  }
  return {x, split, scratch};
}
template <class T>
  requires(sizeof(T) == 2)
NDP_INLINE Row<float> read_row(const T* x, int64_t n, float* scratch) {
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (int k = 0; k < kSumLanes; k += kFloats) store<float>(scratch + i + k, floats(x + i + k));
  if (i < n) {
    T last[kSumLanes] = {};
    std::memcpy(last, x + i, (n - i) * sizeof(T));
    for (int k = 0; k < kSumLanes; k += kFloats) store<float>(scratch + i + k, floats(last + k));
  }
  return {scratch, padded(n), scratch};
}

// Fetches a block of kSumLanes elements of the next row while this one is being worked on: the
// processor's own prefetching stops at the end of a page.
template <class T>
NDP_INLINE void prefetch_block(const T* block) {
#pragma GCC unroll 8
  for (int line = 0; line < kSumLanes; line += 64 / sizeof(T)) __builtin_prefetch(block + line);
}

// A row on its way out: the same places, to be written.
template <class P>
struct OutRow {
  P* whole;
  int64_t split;
  P* rest;
  NDP_INLINE P* at(int64_t i) const { return i < split ? whole + i : rest; }
};

template <class P>
NDP_INLINE OutRow<P> start_row(P* to, int64_t n, P* scratch) {
  return {to, whole_rows(n), scratch};
}
template <class T>
  requires(sizeof(T) == 2)
NDP_INLINE OutRow<float> start_row(T*, int64_t n, float* scratch) {
  return {scratch, padded(n), scratch};
}

// To nearest, ties to even; NaN as `tidy` leaves it.
NDP_INLINE void narrow(float from, Bfloat16& to) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, from);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  to.bits = static_cast<uint16_t>(from == from ? rounded : 0x7fc0);
}
#if NDP_VECTOR_BYTES < 32
NDP_INLINE void narrow(float from, Float16& to) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, from);
  const uint32_t magnitude = bits & 0x7fffffff;
  // Below the normals the addition of 0.5 rounds to multiples of 2^-24, which it leaves in the low
  // bits.
  const uint32_t small =
      __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, magnitude) + 0.5f) - 0x3f000000;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  uint32_t result = magnitude < (113u << 23) ? small : normal;
  result = magnitude >= 0x477ff000 ? 0x7c00 : result;  // half way to 2^16, and infinity
  result = magnitude > 0x7f800000 ? 0x7e00 : result;
  to.bits = static_cast<uint16_t>(result | (bits >> 16 & 0x8000));
}
#endif

template <class T>
NDP_INLINE void narrow_all(const float* from, int64_t n, T* to) {
  for (int64_t i = 0; i < n; ++i) narrow(from[i], to[i]);
}
#if NDP_VECTOR_BYTES >= 32
NDP_INLINE void narrow_all(const float* from, int64_t n, Float16* to) {
  int64_t i = 0;
  const auto eight = [](const float* x) __attribute__((always_inline)) {
    return _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  };
  for (; i + 8 <= n; i += 8) _mm_storeu_si128((__m128i*)(to + i), eight(from + i));
  if (i < n) {
    float last[8] = {};
    std::memcpy(last, from + i, (n - i) * sizeof(float));
    const __m128i rounded = eight(last);
    std::memcpy(to + i, &rounded, (n - i) * sizeof(Float16));
  }
}
#endif

template <class P>
NDP_INLINE void finish_row(const OutRow<P>& row, int64_t n, P* to) {
  std::memcpy(to + row.split, row.rest, (n - row.split) * sizeof(P));
}
template <class T>
  requires(sizeof(T) == 2)
NDP_INLINE void finish_row(const OutRow<float>& row, int64_t n, T* to) {
  narrow_all(row.whole, n, to);
}

// Calls body(i, k): elements i + k .. i + k + kWidth<P> - 1, for all of them, i in steps of
// kSumLanes.
template <class P, class Body>
NDP_INLINE void for_lanes(int64_t n, const Body& body) {
  for (int64_t i = 0; i < n; i += kSumLanes) {
#pragma GCC unroll 64
    for (int k = 0; k < kSumLanes; k += kWidth<P>) body(i, k);
  }
}

// The first `count` lanes of x, counted from lane `first` of the row; -0.0, which changes no sum,
// in the others.
template <class P>
NDP_INLINE VectorOf<P> only(VectorOf<P> x, int64_t count, int first) {
  P lanes[kWidth<P>];
  store<P>(lanes, x);
  for (int lane = 0; lane < kWidth<P>; ++lane)
    if (first + lane >= count) lanes[lane] = -P{0};
  return load<VectorOf<P>>(lanes);
}

// kSums sums of n terms each at once, in the fixed_order format. term(i, k, terms) fills in kSums
// vectors of terms i + k .. i + k + kWidth<P> - 1; it is called once for each.
template <int kSums, class P, class Term>
NDP_INLINE void row_sums(int64_t n, P (&result)[kSums], const Term& term) {
  using Vector = VectorOf<P>;
  constexpr int kAll = kSumLanes / kWidth<P>;
  constexpr int kMost = 8 / kSums < kAll ? 8 / kSums : kAll;  // registers
  P pending[kSums][64];  // sums of 2^i chunks each, the largest first: a binary counter
  for (auto& of_one : pending) of_one[0] = 0;
  int waiting = 0;
  int64_t chunk = 0;
  for (int64_t start = 0; start < n; start += kSumChunk, ++chunk) {
    const int64_t end = n - start < kSumChunk ? n : start + kSumChunk;
    const int64_t split = start + whole_rows(end - start);
    P lane[kSums][kSumLanes];
    for (int first = 0; first < kSumLanes; first += kMost * kWidth<P>) {
      Vector sums[kSums][kMost], terms[kSums];
      for (auto& of_one : sums)
        for (Vector& sum : of_one) sum = everywhere<P>(-P{0});
      for (int64_t i = start; i < split; i += kSumLanes) {
#pragma GCC unroll 8
        for (int k = 0; k < kMost; ++k) {
          term(i, first + k * kWidth<P>, terms);
          for (int s = 0; s < kSums; ++s) sums[s][k] += terms[s];
        }
      }
      if (split < end) {
        for (int k = 0; k < kMost; ++k) {
          const int column = first + k * kWidth<P>;
          term(split, column, terms);
          for (int s = 0; s < kSums; ++s) sums[s][k] += only<P>(terms[s], end - split, column);
        }
      }
      for (int s = 0; s < kSums; ++s) std::memcpy(lane[s] + first, sums[s], sizeof sums[s]);
    }
    for (int s = 0; s < kSums; ++s) {
      for (int half = kSumLanes / 2; half >= 1; half /= 2)
        for (int j = 0; j < half; ++j) lane[s][j] += lane[s][j + half];
      pending[s][waiting] = lane[s][0];
    }
    ++waiting;
    for (int64_t done = chunk; done & 1; done >>= 1, --waiting)
      for (int s = 0; s < kSums; ++s) pending[s][waiting - 2] += pending[s][waiting - 1];
  }
  for (; waiting > 1; --waiting)
    for (int s = 0; s < kSums; ++s) pending[s][waiting - 2] += pending[s][waiting - 1];
  for (int s = 0; s < kSums; ++s) result[s] = pending[s][0];
}

// n elements to and from P.
template <class T>
void widen(const void* from, int64_t n, void* to) {
  using P = typename Traits<T>::Partial;
  for (int64_t i = 0; i < n; ++i)
    static_cast<P*>(to)[i] = static_cast<P>(value(static_cast<const T*>(from)[i]));
}

template <class T>
void narrow_from(const void* from, int64_t n, void* to) {
  if constexpr (sizeof(T) == sizeof(typename Traits<T>::Partial))
    std::memcpy(to, from, n * sizeof(T));
  else
    narrow_all(static_cast<const float*>(from), n, static_cast<T*>(to));
}

}  // namespace
