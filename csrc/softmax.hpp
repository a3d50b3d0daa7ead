// softmax, log_softmax and cross_entropy over the rows of a contiguous matrix, and their
// derivatives. The formulas, and where each rounding is: docs/ops/softmax.md and cross_entropy.md.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"
#include "sum.hpp"

namespace ndp {

enum class RowsVariant;  // rows_variant.hpp, which is not for files compiled once a level

// A matrix of `rows` times `columns` elements of one dtype. P is double for fp64, else float.
struct SoftmaxRows {
  int64_t rows;
  int64_t columns;
  const void* x;         // forward; backward: y
  const void* gradient;  // of y; unused forward
  void* result;          // y forward, the gradient of x backward
};

// A row's loss is weight[t] (lse - x[t]) (1 - smoothing) + smoothing / columns * the sum of
// weight[c] (lse - x[c]) over all c, with t its target; 0 where t is ignored.
struct EntropyRows {
  int64_t rows;
  int64_t columns;
  const void* x;
  const int64_t* target;  // of each row; in range, or ignored
  const void* weight;     // P, padded to whole kSumLanes; ones for none
  bool weighted;
  int64_t ignored;
  double smoothing;
  void* most;    // P, of each row: the largest element, and the sum of exp(x - most)
  void* total;   // the same; both written forward, read backward
  void* loss;    // P, of each row, forward
  const void* gradient;  // P, of each row's loss, backward
  double weights;        // the sum of all weights, rounded to P, backward
  void* result;          // the gradient of x, backward
};

// What an ISA level brings for one dtype, for rows [first, first + count); scratch: 4 padded rows
// of P.
struct SoftmaxKernels {
  void (*softmax)(const SoftmaxRows& job, int64_t first, int64_t count, void* scratch);
  void (*log_softmax)(const SoftmaxRows& job, int64_t first, int64_t count, void* scratch);
  void (*softmax_backward)(const SoftmaxRows& job, int64_t first, int64_t count, void* scratch);
  void (*log_softmax_backward)(const SoftmaxRows& job, int64_t first, int64_t count, void* scratch);
  void (*entropy)(const EntropyRows& job, int64_t first, int64_t count, void* scratch);
  void (*entropy_backward)(const EntropyRows& job, int64_t first, int64_t count, void* scratch);
  void (*widen)(const void* from, int64_t n, void* to);   // to P
  void (*narrow)(const void* from, int64_t n, void* to);  // from P
  void (*sum)(const void* x, int64_t n, void* result);   // of P, in the fixed_order format
  void (*exp)(const void* x, int64_t n, void* result);   // of P, one by one; for tests
};

void softmax(Dtype dtype, bool log, const void* x, int64_t rows, int64_t columns, int threads,
             const std::string& isa, void* y);
void softmax_backward(Dtype dtype, bool log, const void* gradient, const void* y, int64_t rows,
                      int64_t columns, int threads, const std::string& isa, void* dx);

enum class Reduction { none, mean, sum };

struct EntropyOptions {
  int64_t ignored;
  Reduction reduction;
  double smoothing;
};

// The losses of the rows (reduction none), their sum or their weighted mean into `result`, of the
// dtype. weight: columns elements of the dtype, or null. statistics: 2 * rows elements of P.
// weights: the sum of the targets' weights, or their number without weights; fp64.
// Throws std::out_of_range naming a target that is neither ignored nor in [0, columns); nothing
// was written then.
void cross_entropy(Dtype dtype, RowsVariant variant, const void* x, const int64_t* target,
                   int64_t rows, int64_t columns, const void* weight, const EntropyOptions& options,
                   int threads, const std::string& isa, void* result, void* statistics,
                   double* weights);

// gradient: of the result, one element of the dtype, or `rows` where there was no reduction.
void cross_entropy_backward(Dtype dtype, const void* gradient, const void* x, const int64_t* target,
                            int64_t rows, int64_t columns, const void* weight,
                            const EntropyOptions& options, const void* statistics, double weights,
                            int threads, const std::string& isa, void* dx);

// exp and log of n elements, for tests of csrc/exp_log.hpp. exp: float32 or float64.
void exp_all(Dtype dtype, const void* x, int64_t n, const std::string& isa, void* result);
void log_all(const double* x, int64_t n, double* result);

}  // namespace ndp
