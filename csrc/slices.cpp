#include "slices.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <optional>

#include "float_mode.hpp"
#include "host_libs.hpp"
#include "parallel.hpp"

namespace ndp {

namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
// Slices of one product: enough for as many threads; more would pack the operands more often.
constexpr int64_t kSlices = 16;
// Packing a slice costs the more beside multiplying it the shorter its sides are: below kSide only
// as far as the first kFew slices need it.
constexpr int64_t kSide = 256, kShortSide = 128;
constexpr int64_t kFew = 4;
constexpr int64_t kDepth = 1024;
// Multiply-adds below which starting threads costs more than it gains.
constexpr int64_t kWork = 1 << 18;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t slice_length(int64_t length, int64_t parts) {
  return ceil_div(ceil_div(length, parts), 32) * 32;
}

// A matrix as the Fortran BLAS sees it: its columns are our rows.
struct Operand {
  char transposed;
  int leading;
};

std::optional<Operand> as_blas(const Matrix& x, int64_t rows, int64_t columns) {
  if (rows > kMaxInt || columns > kMaxInt) return std::nullopt;
  const bool by_row = x.column_stride == 1 || columns <= 1;
  const bool by_column = x.row_stride == 1 || rows <= 1;
  const auto fits = [](int64_t lines, int64_t stride, int64_t length) -> std::optional<int> {
    if (lines <= 1) return static_cast<int>(std::max<int64_t>(1, length));
    if (stride < std::max<int64_t>(1, length) || stride > kMaxInt) return std::nullopt;
    return static_cast<int>(stride);
  };
  if (by_row) {
    if (const auto leading = fits(rows, x.row_stride, columns)) return Operand{'N', *leading};
  }
  if (by_column) {
    if (const auto leading = fits(columns, x.column_stride, rows)) return Operand{'T', *leading};
  }
  return std::nullopt;
}

template <class Real>
Gemm<Real> gemm();
template <>
Gemm<float> gemm<float>() {
  return host_libs().sgemm;
}
template <>
Gemm<double> gemm<double>() {
  return host_libs().dgemm;
}

template <class Real>
Real* element(const Matrix& x, int64_t batch, int64_t row, int64_t column) {
  return reinterpret_cast<Real*>(x.data) + batch * x.batch_stride + row * x.row_stride +
         column * x.column_stride;
}

}  // namespace

Cut cut_product(int64_t batch, int64_t m, int64_t k, int64_t n) {
  Cut cut{1, 1, 1};
  const int64_t wanted = std::max<int64_t>(1, kSlices / std::max<int64_t>(1, batch));
  while (cut.rows * cut.columns < wanted) {
    const int64_t height = ceil_div(m, cut.rows), width = ceil_div(n, cut.columns);
    const int64_t side = cut.rows * cut.columns < kFew ? kShortSide : kSide;
    if (std::max(height, width) < 2 * side) break;
    (height >= width ? cut.rows : cut.columns) *= 2;
  }
  const int64_t left = wanted / (cut.rows * cut.columns);
  cut.depth = std::clamp<int64_t>(k / kDepth, 1, std::max<int64_t>(1, left));
  // Rounding up may need fewer slices than were counted.
  const auto used = [](int64_t length, int64_t parts) {
    return parts == 1 ? 1 : ceil_div(length, slice_length(length, parts));
  };
  return {used(m, cut.rows), used(n, cut.columns), used(k, cut.depth)};
}

template <class Real>
bool product(const Product& given, int threads) {
  const auto [batch, m, k, n, a, b, c, alpha, beta] = given;
  const Gemm<Real> multiply = gemm<Real>();
  const auto blas_a = as_blas(a, m, k), blas_b = as_blas(b, k, n), blas_c = as_blas(c, m, n);
  if (!multiply || !blas_a || !blas_b || !blas_c || blas_c->transposed == 'T') return false;
  if (batch == 0 || m == 0 || n == 0) return true;

  const Cut cut = cut_product(batch, m, k, n);
  const int64_t height = cut.rows == 1 ? m : slice_length(m, cut.rows);
  const int64_t width = cut.columns == 1 ? n : slice_length(n, cut.columns);
  const int64_t depth = cut.depth == 1 ? k : slice_length(k, cut.depth);
  // Slices of k beyond the first go to matrices of their own, added in order afterwards.
  const std::unique_ptr<Real[]> partial(
      cut.depth > 1 ? new Real[(cut.depth - 1) * batch * m * n] : nullptr);
  const int64_t items = batch * cut.rows * cut.columns * cut.depth;
  const bool small = batch * m * n * std::max<int64_t>(1, k) < kWork;
  const int workers = small ? 1 : static_cast<int>(std::min<int64_t>(threads, items));

  std::atomic<int64_t> next{0};
  parallel_run(workers, [&](int) {
    const DefaultFloatMode mode;
    const OneThread alone;
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
      int64_t rest = item;
      const int64_t part = rest % cut.depth;
      rest /= cut.depth;
      const int64_t column = rest % cut.columns * width;
      rest /= cut.columns;
      const int64_t row = rest % cut.rows * height, index = rest / cut.rows, low = part * depth;
      const int rows = static_cast<int>(std::min(height, m - row));
      const int columns = static_cast<int>(std::min(width, n - column));
      const int inner = static_cast<int>(std::min(depth, k - low));
      const Real scale = static_cast<Real>(alpha);
      const Real keep = part == 0 ? static_cast<Real>(beta) : Real{0};
      Real* out = element<Real>(c, index, row, column);
      int leading = blas_c->leading;
      if (part > 0) {
        out = partial.get() + (((part - 1) * batch + index) * m + row) * n + column;
        leading = static_cast<int>(n);
      }
      // Column-major BLAS on row-major memory gives the transpose: b comes first.
      multiply(&blas_b->transposed, &blas_a->transposed, &columns, &rows, &inner, &scale,
               element<Real>(b, index, low, column), &blas_b->leading,
               element<Real>(a, index, row, low), &blas_a->leading, &keep, out, &leading);
    }
  });
  for (int64_t part = 1; part < cut.depth; ++part) {
    const Real* from = partial.get() + (part - 1) * batch * m * n;
    for (int64_t index = 0; index < batch; ++index) {
      for (int64_t row = 0; row < m; ++row, from += n) {
        Real* into = element<Real>(c, index, row, 0);
        for (int64_t column = 0; column < n; ++column) into[column] += from[column];
      }
    }
  }
  return true;
}

template bool product<float>(const Product&, int);
template bool product<double>(const Product&, int);

}  // namespace ndp
