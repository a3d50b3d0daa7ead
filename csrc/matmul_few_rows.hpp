// Products of few rows of a. Included inside the namespace of an ISA level, after matmul_tiles.hpp.
//
// The time is that of reading b, so b is read once and as it lies.

namespace {

constexpr int kStreamedRows = 4;  // the cases in `product`

// Adds terms p .. p + kTerms - 1 to the chains of a block.
template <int kRows, int kTerms, class T, class Sum>
NDP_INLINE void add_terms(const Factor& a, const Factor& b, int64_t columns, int64_t p,
                          Sum* chains) {
  using Vector = typename VectorOf<Sum>::Type;
  Sum factor[kRows][kTerms];
  for (int i = 0; i < kRows; ++i)
    for (int q = 0; q < kTerms; ++q)
      factor[i][q] = widened<Sum>(
          static_cast<const T*>(a.data)[i * a.line_stride + (p + q) * a.k_stride]);
  const T* row = static_cast<const T*>(b.data) + p * b.k_stride;
  int64_t j = 0;
  for (; j + kWidth<Sum> <= columns; j += kWidth<Sum>) {
    Vector terms[kTerms];
    for (int q = 0; q < kTerms; ++q) {
      if constexpr (sizeof(T) == sizeof(Sum))
        terms[q] = load<Vector>(row + q * b.k_stride + j);
      else
        terms[q] = partials(row + q * b.k_stride + j);
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      Vector sum = load<Vector>(chains + i * columns + j);
      for (int q = 0; q < kTerms; ++q) sum = fused(factor[i][q] - Vector{}, terms[q], sum);
      std::memcpy(chains + i * columns + j, &sum, sizeof sum);
    }
  }
  for (; j < columns; ++j)
    for (int i = 0; i < kRows; ++i)
      for (int q = 0; q < kTerms; ++q) {
        Sum& sum = chains[i * columns + j];
        sum = fused(factor[i][q], widened<Sum>(row[q * b.k_stride + j]), sum);
      }
}

// The lines of b are neighbours: its elements stream by, and the chains stay in the cache.
template <int kRows, class T, class Sum>
void product_streamed(const Factor& a, const Factor& b, int64_t columns, int64_t k, Sum* sums,
                      int64_t sums_stride, Sum* chains) {
  constexpr int kTerms = 4;  // between a load and a store of a chain
  for (int64_t start = 0; start < k; start += kMatmulBlock) {
    const int64_t end = start + less(k - start, kMatmulBlock);
    for (int64_t i = 0; i < kRows * columns; ++i) chains[i] = -Sum{0};
    int64_t p = start;
    for (; p + kTerms <= end; p += kTerms) add_terms<kRows, kTerms, T>(a, b, columns, p, chains);
    for (; p < end; ++p) add_terms<kRows, 1, T>(a, b, columns, p, chains);
    for (int i = 0; i < kRows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        const Sum sum = chains[i * columns + j];
        sums[i * sums_stride + j] = start == 0 ? sum : sums[i * sums_stride + j] + sum;
      }
  }
}

constexpr int kDottedRows = 2;
constexpr int kChains = 8;  // side by side, to hide the latency of an addition

// Keeps a chain in a register of its own. Left to itself gcc makes vectors of the chains, gathering
// them element by element, which takes four times as long.
template <class Sum>
NDP_INLINE void keep_apart(Sum& chain) {
#if defined(__x86_64__)
  asm("" : "+x"(chain));
#elif defined(__aarch64__)
  asm("" : "+w"(chain));
#endif
}

// kChains chains of `terms` terms. Chain c is block c of x and y, or, where kLines, all of x and
// line c of y.
template <bool kLines, class Sum, class T>
NDP_INLINE void run_chains(const T* x, const T* y, int64_t line_stride, int64_t terms,
                           Sum* chains) {
  Sum sum[kChains];
  for (Sum& chain : sum) chain = -Sum{0};
  for (int64_t p = 0; p < terms; ++p)
#pragma GCC unroll 8
    for (int c = 0; c < kChains; ++c) {
      const T left = kLines ? x[p] : x[c * kMatmulBlock + p];
      const T right = kLines ? y[c * line_stride + p] : y[c * kMatmulBlock + p];
      sum[c] = fused(widened<Sum>(left), widened<Sum>(right), sum[c]);
      keep_apart(sum[c]);
    }
  for (int c = 0; c < kChains; ++c) chains[c] = sum[c];
}

// k runs along neighbours in both factors: kChains lines of b at a time, or, of a line that is left
// over, kChains blocks.
template <class T, class Sum>
void product_dotted(const Factor& a, const Factor& b, int64_t rows, int64_t columns, int64_t k,
                    Sum* sums, int64_t sums_stride) {
  Sum chains[kChains];
  for (int64_t i = 0; i < rows; ++i) {
    const T* x = static_cast<const T*>(a.data) + i * a.line_stride;
    Sum* row = sums + i * sums_stride;
    int64_t j = 0;
    for (; j + kChains <= columns; j += kChains) {
      const T* y = static_cast<const T*>(b.data) + j * b.line_stride;
      for (int64_t start = 0; start < k; start += kMatmulBlock) {
        run_chains<true>(x + start, y + start, b.line_stride, less(k - start, kMatmulBlock),
                         chains);
        for (int c = 0; c < kChains; ++c)
          row[j + c] = start == 0 ? chains[c] : row[j + c] + chains[c];
      }
    }
    for (; j < columns; ++j) {
      const T* y = static_cast<const T*>(b.data) + j * b.line_stride;
      for (int64_t start = 0; start < k;) {
        const bool many = k - start >= kChains * kMatmulBlock;
        const int64_t terms = less(k - start, kMatmulBlock);
        if (many)
          run_chains<false>(x + start, y + start, 0, terms, chains);
        else
          run_chains<true>(x + start, y + start, 0, terms, chains);  // all eight the same
        for (int c = 0; c < (many ? kChains : 1); ++c, start += terms)
          row[j] = start == 0 ? chains[c] : row[j] + chains[c];
      }
    }
  }
}

}  // namespace
