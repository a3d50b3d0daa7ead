// Variances and means of the rows of a contiguous matrix, three ways: docs/ops/var.md.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"
#include "product_sum.hpp"
#include "sum.hpp"

namespace ndp {

// variants.hpp reads their names.
enum class VarVariant { two_pass, fixed_order, exact };

// The longest row whose sums are kept in 128-bit integers.
constexpr int64_t kQuickRow = int64_t{1} << 20;

// The exact sums of a row and of its squares, sum * 2^sum_unit and squares * 2^squares_unit.
struct QuickMoments {
  __int128 sum;
  __int128 squares;
  int sum_unit;
  int squares_unit;
};

// The same in accumulators wide enough for every row.
struct Moments {
  ProductSum sum;  // of products with 1: only `high` is used
  ProductSum squares;
};

// What an ISA level brings for one dtype. x is contiguous; n counts elements.
struct VarKernels {
  // The 64-lane sums of fixed_order, of elements and of squared deviations from *mean; both in fp64
  // for fp64, fp32 for the others.
  void (*sum)(const void* x, int64_t n, void* result);
  void (*squares)(const void* x, int64_t n, const void* mean, void* result);
  // False, and nothing found, where integers of 128 bits do not hold the row. exponent: of the row
  // before, |x| < 2^exponent. Null for fp64.
  bool (*quick)(const void* x, int64_t n, int& exponent, QuickMoments& found);
  void (*exact)(const void* x, int64_t n, Moments& sums);
};

// Writes `rows` variances and means, elements of `dtype`, of rows of n elements. The sum of squared
// deviations is divided by max(0, n - correction). Throws std::invalid_argument for a dtype other
// than float64, float32, bfloat16 and float16. But for `two_pass`, the same bits for every level
// and any number of threads.
void var_mean(Dtype dtype, VarVariant variant, const void* x, int64_t rows, int64_t n,
              int64_t correction, int threads, const std::string& isa, void* var, void* mean);

}  // namespace ndp
