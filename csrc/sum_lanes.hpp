// Vectors of one ISA level and how elements are read into them. Included by `*_isa.cpp` files only,
// inside the namespace of the level: everything here has internal linkage. Arithmetic is on the
// compiler's generic vectors; only widening loads differ between the levels. Functions of the standard
// library are kept out: unlike these they would be shared between the levels
// (tests/ops/test_isa_objects.py).

namespace {

// Without intrinsics the compiler still has vectors of this size on every 64-bit machine.
constexpr int kBytes = NDP_VECTOR_BYTES == 0 ? 16 : NDP_VECTOR_BYTES;
constexpr int kDoubles = kBytes / 8;
constexpr int kFloats = kBytes / 4;

typedef double Doubles __attribute__((vector_size(kBytes)));
typedef float Floats __attribute__((vector_size(kBytes)));
typedef uint64_t Words __attribute__((vector_size(kBytes)));

#define NDP_INLINE inline __attribute__((always_inline))

// Elements of 16 bits, told apart by type.
struct Bfloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class T>
struct Traits;
template <>
struct Traits<double> {
  using Partial = double;  // what fixed_order adds in
  using Bits = uint64_t;
  static constexpr Bits magnitude = 0x7fffffffffffffff, infinity = 0x7ff0000000000000;
  static constexpr int bins = kBins64;
};
template <>
struct Traits<float> {
  using Partial = float;
  using Bits = uint32_t;
  static constexpr Bits magnitude = 0x7fffffff, infinity = 0x7f800000;
  static constexpr int bins = kBins32;
};
template <>
struct Traits<Bfloat16> {
  using Partial = float;
  using Bits = uint16_t;
  static constexpr Bits magnitude = 0x7fff, infinity = 0x7f80;
  static constexpr int bins = kBins32;
};
template <>
struct Traits<Float16> {
  using Partial = float;
  using Bits = uint16_t;
  static constexpr Bits magnitude = 0x7fff, infinity = 0x7c00;
  static constexpr int bins = kBins32;
};

// One element, exactly. NaN and infinity stay what they are; payloads are not kept.
NDP_INLINE double value(double x) { return x; }
NDP_INLINE double value(float x) { return x; }
NDP_INLINE float narrow_value(Bfloat16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}
NDP_INLINE float narrow_value(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t magnitude = x.bits & 0x7fff;
  // Re-biasing by a multiplication makes subnormals normal by itself; infinity and NaN need help.
  const float scaled = __builtin_bit_cast(float, magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00 ? 0x7f800000 : 0;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, scaled) | special | sign);
}
NDP_INLINE double value(Bfloat16 x) { return narrow_value(x); }
NDP_INLINE double value(Float16 x) { return narrow_value(x); }

template <class Vector>
NDP_INLINE Vector load(const void* from) {
  Vector loaded;
  std::memcpy(&loaded, from, sizeof loaded);
  return loaded;
}

// kDoubles elements as fp64, and kFloats elements as fp32, exactly.
NDP_INLINE Doubles doubles(const double* x) { return load<Doubles>(x); }

#if NDP_VECTOR_BYTES == 0

NDP_INLINE Floats floats(const float* x) { return load<Floats>(x); }
template <class T>
NDP_INLINE Doubles doubles(const T* x) {
  return Doubles{value(x[0]), value(x[1])};
}
template <class T>
NDP_INLINE Floats floats(const T* x) {
  return Floats{narrow_value(x[0]), narrow_value(x[1]), narrow_value(x[2]), narrow_value(x[3])};
}

#elif NDP_VECTOR_BYTES == 64

// 64 bytes in four loads. Of a line on its way from memory these cost nothing, and they leave more
// of the fetching to the prefetcher, which does it better than a processor full of waiting loads
// (Zen 4, plain additions: 27 against 20 GB/s; with more work per line it makes no difference).
NDP_INLINE __m512i load_slowly(const void* from) {
  const __m128i* x = static_cast<const __m128i*>(from);
  const __m256i low =
      _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(x)), _mm_loadu_si128(x + 1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(x + 2)),
                                               _mm_loadu_si128(x + 3), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
NDP_INLINE Floats floats(const float* x) { return _mm512_castsi512_ps(load_slowly(x)); }
NDP_INLINE Doubles doubles(const float* x) { return _mm512_cvtps_pd(_mm256_loadu_ps(x)); }
NDP_INLINE Doubles doubles(const Bfloat16* x) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x));
  return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
}
NDP_INLINE Doubles doubles(const Float16* x) {
  return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)x)));
}
NDP_INLINE Floats floats(const Bfloat16* x) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
NDP_INLINE Floats floats(const Float16* x) {
  return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)x));
}

#elif NDP_VECTOR_BYTES == 32

NDP_INLINE Floats floats(const float* x) { return _mm256_loadu_ps(x); }
NDP_INLINE Doubles doubles(const float* x) { return _mm256_cvtps_pd(_mm_loadu_ps(x)); }
NDP_INLINE Doubles doubles(const Bfloat16* x) {
  const __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i*)x));
  return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(wide, 16)));
}
NDP_INLINE Doubles doubles(const Float16* x) {
  return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i*)x)));
}
NDP_INLINE Floats floats(const Bfloat16* x) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
NDP_INLINE Floats floats(const Float16* x) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)x));
}

#else  // SSE2, 16 bytes

NDP_INLINE Floats floats(const float* x) { return _mm_loadu_ps(x); }
NDP_INLINE Doubles doubles(const float* x) {
  return _mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i*)x)));
}
NDP_INLINE Floats floats(const Bfloat16* x) {
  const __m128i narrow = _mm_loadl_epi64((const __m128i*)x);
  return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), narrow));
}
NDP_INLINE Floats floats(const Float16* x) {
  const __m128i bits = _mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i*)x), _mm_setzero_si128());
  const __m128i magnitude = _mm_and_si128(bits, _mm_set1_epi32(0x7fff));
  const __m128i sign = _mm_slli_epi32(_mm_xor_si128(bits, magnitude), 16);
  const __m128i special = _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7bff)),
                                        _mm_set1_epi32(0x7f800000));
  const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(magnitude, 13)),
                                   _mm_set1_ps(0x1p112f));
  return _mm_or_ps(scaled, _mm_castsi128_ps(_mm_or_si128(sign, special)));
}
template <class T>
NDP_INLINE Doubles doubles(const T* x) {
  return Doubles{value(x[0]), value(x[1])};
}

#endif

// Elements in the type that fixed_order adds in.
template <class T>
NDP_INLINE Floats partials(const T* x) {
  return floats(x);
}
#if NDP_VECTOR_BYTES == 64
NDP_INLINE Doubles partials(const double* x) { return _mm512_castsi512_pd(load_slowly(x)); }
#else
NDP_INLINE Doubles partials(const double* x) { return doubles(x); }
#endif

NDP_INLINE Doubles spread(double x) { return x - Doubles{}; }

// Elements of `runs` runs side by side: x[run * apart + i] for i < n.
template <class T>
struct Block {
  const T* x;
  int64_t n;
  int64_t apart;
  int runs;
};

// Calls body(row) for rows of kSumLanes elements, the last filled up with -0.0, which changes no
// sum.
template <class T, class Body>
NDP_INLINE void for_rows(const T* x, int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) body(x + i);
  if (i < n) {
    T row[kSumLanes];
    const auto padding = static_cast<typename Traits<T>::Bits>(Traits<T>::magnitude + 1);
    for (int lane = 0; lane < kSumLanes; ++lane) std::memcpy(row + lane, &padding, sizeof(T));
    std::memcpy(row, x + i, (n - i) * sizeof(T));
    body(row);
  }
}

// The same for all runs, 1 KiB of each in turn.
template <class T, class Body>
NDP_INLINE void for_rows(const Block<T>& block, const Body& body) {
  constexpr int64_t kVisit = 1024 / sizeof(T);
  for (int64_t i = 0; i < block.n; i += kVisit)
    for (int run = 0; run < block.runs; ++run)
      for_rows(block.x + run * block.apart + i, block.n - i < kVisit ? block.n - i : kVisit, body);
}

// The largest |x| as a bit pattern; NaN lies above infinity.
template <class T>
NDP_INLINE typename Traits<T>::Bits largest(const T* x, int64_t n) {
  using Bits = typename Traits<T>::Bits;
  Bits most = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= Traits<T>::magnitude;
    most = bits > most ? bits : most;
  }
  return most;
}

// The smallest e with x < 2^e, for a finite x >= 0 given as bits; zero counts as the smallest.
template <class T>
NDP_INLINE int exponent_above(typename Traits<T>::Bits bits) {
  T x;
  std::memcpy(&x, &bits, sizeof x);
  const uint64_t wide = __builtin_bit_cast(uint64_t, value(x));
  const int biased = static_cast<int>(wide >> 52);
  if (biased != 0) return biased - 1022;
  return wide == 0 ? -1074 : 64 - __builtin_clzll(wide) - 1074;
}

}  // namespace
