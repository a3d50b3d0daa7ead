// Products of panels, and how factors are laid out for them. Included by matmul_isa.cpp only, after
// sum_lanes.hpp and inside the namespace of the level.

namespace {

NDP_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
NDP_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

#if NDP_VECTOR_BYTES == 64
NDP_INLINE Doubles fused(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
NDP_INLINE Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
#elif NDP_VECTOR_BYTES == 32
NDP_INLINE Doubles fused(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
NDP_INLINE Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
#else
// An instruction where the machine has one (AArch64), else a call of the C library: right, slow.
template <class Vector>
NDP_INLINE Vector fused(Vector a, Vector b, Vector c) {
  for (unsigned lane = 0; lane < sizeof a / sizeof a[0]; ++lane)
    c[lane] = fused(a[lane], b[lane], c[lane]);
  return c;
}
#endif

// A vector of sums of this type.
template <class Sum>
struct VectorOf;
template <>
struct VectorOf<double> {
  using Type = Doubles;
};
template <>
struct VectorOf<float> {
  using Type = Floats;
};
template <class Sum>
constexpr int kWidth = kBytes / sizeof(Sum);

// The tile that is held in registers: lines of a by vectors of lines of b. With 32 registers 24 are
// sums, with 16 they are 12.
constexpr int kLinesOfA = NDP_VECTOR_BYTES == 64 ? 12 : NDP_VECTOR_BYTES == 32 ? 6 : 4;
constexpr int kVectorsOfB = 2;
template <class Sum>
constexpr int kLinesOfB = kVectorsOfB * kWidth<Sum>;

// Sums between the lines of a packed a: no multiple of 1024 bytes, so that lines do not push each
// other out of the cache.
constexpr int64_t kPackedLine = kMatmulBlock + 16;

template <class Sum, class T>
NDP_INLINE Sum widened(T x) {
  if constexpr (sizeof(T) == 2)
    return narrow_value(x);
  else
    return x;
}

NDP_INLINE int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- Layout. A packed a has its lines one after the other, kPackedLine apart; a packed b has
// panels of kLinesOfB lines, each panel k by k.

template <class Sum>
struct Quad {
  typedef Sum Type __attribute__((vector_size(4 * sizeof(Sum))));
};

template <class Sum, class T>
NDP_INLINE typename Quad<Sum>::Type quad(const T* x) {
  if constexpr (sizeof(T) == sizeof(Sum))
    return load<typename Quad<Sum>::Type>(x);
  else
    return typename Quad<Sum>::Type{widened<Sum>(x[0]), widened<Sum>(x[1]), widened<Sum>(x[2]),
                                    widened<Sum>(x[3])};
}

// to[column * to_stride + row] = from[row * from_stride + column]
template <class Sum, class T>
void transpose(const T* from, int64_t from_stride, int64_t rows, int64_t columns, Sum* to,
               int64_t to_stride) {
  using Four = typename Quad<Sum>::Type;
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    const T* x = from + row * from_stride;
    Sum* y = to + row;
    int64_t column = 0;
    for (; column + 4 <= columns; column += 4) {
      const Four x0 = quad<Sum>(x + column), x1 = quad<Sum>(x + from_stride + column);
      const Four x2 = quad<Sum>(x + 2 * from_stride + column);
      const Four x3 = quad<Sum>(x + 3 * from_stride + column);
      const Four low01 = __builtin_shufflevector(x0, x1, 0, 4, 1, 5);
      const Four low23 = __builtin_shufflevector(x2, x3, 0, 4, 1, 5);
      const Four high01 = __builtin_shufflevector(x0, x1, 2, 6, 3, 7);
      const Four high23 = __builtin_shufflevector(x2, x3, 2, 6, 3, 7);
      const Four out[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5),
                           __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                           __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
                           __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
      for (int i = 0; i < 4; ++i) std::memcpy(y + (column + i) * to_stride, &out[i], sizeof(Four));
    }
    for (; column < columns; ++column)
      for (int i = 0; i < 4; ++i) y[column * to_stride + i] = widened<Sum>(x[i * from_stride + column]);
  }
  for (; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      to[column * to_stride + row] = widened<Sum>(from[row * from_stride + column]);
}

// `count` neighbours, converted.
template <class Sum, class T>
NDP_INLINE void convert(const T* from, int64_t count, Sum* to) {
  if constexpr (sizeof(T) == sizeof(Sum)) {
    std::memcpy(to, from, count * sizeof(Sum));
  } else {
    int64_t i = 0;
    for (; i + kWidth<Sum> <= count; i += kWidth<Sum>) {
      const auto wide = partials(from + i);
      std::memcpy(to + i, &wide, sizeof wide);
    }
    for (; i < count; ++i) to[i] = widened<Sum>(from[i]);
  }
}

template <class T, class Sum>
void pack_a(const Factor& a, int64_t lines, int64_t k, Sum* to) {
  const T* from = static_cast<const T*>(a.data);
  if (a.k_stride == 1) {
    for (int64_t i = 0; i < lines; ++i)
      convert(from + i * a.line_stride, k, to + i * kPackedLine);
  } else if (a.line_stride == 1) {
    transpose(from, a.k_stride, k, lines, to, kPackedLine);
  } else {
    for (int64_t i = 0; i < lines; ++i)
      for (int64_t p = 0; p < k; ++p)
        to[i * kPackedLine + p] = widened<Sum>(from[i * a.line_stride + p * a.k_stride]);
  }
}

// The lines that fill up the last panel are zeros.
template <class T, class Sum>
void pack_b(const Factor& b, int64_t lines, int64_t k, Sum* to) {
  constexpr int kLines = kLinesOfB<Sum>;
  const T* from = static_cast<const T*>(b.data);
  for (int64_t first = 0; first < lines; first += kLines, to += kLines * k) {
    const int64_t count = less(lines - first, kLines);
    const T* x = from + first * b.line_stride;
    if (count < kLines) std::memset(to, 0, kLines * k * sizeof(Sum));
    if (b.line_stride == 1 && count == kLines) {
      for (int64_t p = 0; p < k; ++p) convert(x + p * b.k_stride, kLines, to + p * kLines);
    } else if (b.k_stride == 1) {
      transpose(x, b.line_stride, count, k, to, kLines);
    } else {
      for (int64_t p = 0; p < k; ++p)
        for (int64_t j = 0; j < count; ++j)
          to[p * kLines + j] = widened<Sum>(x[j * b.line_stride + p * b.k_stride]);
    }
  }
}

// ---- Products of packed factors

// One block of k for kLines lines of a and one panel of b.
template <class Sum, int kLines>
void multiply(const Sum* a, const Sum* b, int64_t k, Sum* sums, int64_t sums_stride, bool first) {
  using Vector = typename VectorOf<Sum>::Type;
  Vector total[kLines][kVectorsOfB];
  for (auto& line : total)
    for (Vector& sum : line) sum = -Vector{};  // -0.0 plus x is x, for every x
#pragma GCC unroll 2
  for (int64_t p = 0; p < k; ++p, b += kLinesOfB<Sum>) {
    Vector panel[kVectorsOfB];
#pragma GCC unroll 4
    for (int v = 0; v < kVectorsOfB; ++v) panel[v] = load<Vector>(b + v * kWidth<Sum>);
#pragma GCC unroll 16
    for (int i = 0; i < kLines; ++i) {
      const Vector factor = a[i * kPackedLine + p] - Vector{};
#pragma GCC unroll 4
      for (int v = 0; v < kVectorsOfB; ++v) total[i][v] = fused(factor, panel[v], total[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLines; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectorsOfB; ++v) {
      Sum* sum = sums + i * sums_stride + v * kWidth<Sum>;
      if (!first) total[i][v] = load<Vector>(sum) + total[i][v];
      std::memcpy(sum, &total[i][v], sizeof(Vector));
    }
}

template <class Sum>
void multiply_lines(int64_t lines, const Sum* a, const Sum* b, int64_t k, Sum* sums,
                    int64_t sums_stride, bool first) {
  switch (lines) {
#define NDP_CASE(count)                                               \
  case count:                                                         \
    if constexpr (count <= kLinesOfA)                                 \
      return multiply<Sum, count>(a, b, k, sums, sums_stride, first); \
    break;
    NDP_CASE(1)
    NDP_CASE(2)
    NDP_CASE(3)
    NDP_CASE(4)
    NDP_CASE(5)
    NDP_CASE(6)
    NDP_CASE(7)
    NDP_CASE(8)
    NDP_CASE(9)
    NDP_CASE(10)
    NDP_CASE(11)
    NDP_CASE(12)
#undef NDP_CASE
  }
}

NDP_INLINE Factor at(const Factor& factor, int64_t line, int64_t k, int64_t bytes) {
  const char* data = static_cast<const char*>(factor.data);
  return {data + (line * factor.line_stride + k * factor.k_stride) * bytes, factor.line_stride,
          factor.k_stride};
}

template <class Sum>
constexpr int64_t panels(int64_t lines) {
  return (lines + kLinesOfB<Sum> - 1) / kLinesOfB<Sum>;
}

template <class T, class Sum>
void product_packed(const Factor& a, const Factor& b, int64_t rows, int64_t columns, int64_t k,
                    Sum* sums, int64_t sums_stride, Sum* room) {
  Sum* packed_a = room;
  Sum* packed_b = room + rows * kPackedLine;
  for (int64_t start = 0; start < k; start += kMatmulBlock) {
    const int64_t block = less(k - start, kMatmulBlock);
    pack_a<T>(at(a, 0, start, sizeof(T)), rows, block, packed_a);
    pack_b<T>(at(b, 0, start, sizeof(T)), columns, block, packed_b);
    for (int64_t i = 0; i < rows; i += kLinesOfA)
      for (int64_t panel = 0; panel < panels<Sum>(columns); ++panel)
        multiply_lines(less(rows - i, kLinesOfA), packed_a + i * kPackedLine,
                       packed_b + panel * kLinesOfB<Sum> * block, block,
                       sums + i * sums_stride + panel * kLinesOfB<Sum>, sums_stride, start == 0);
  }
}

}  // namespace
