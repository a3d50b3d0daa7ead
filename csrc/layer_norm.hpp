// layer_norm and rms_norm over the rows of a contiguous matrix, and their derivatives.
// The formulas, and where each rounding is: docs/ops/layer_norm.md.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"
#include "sum.hpp"
#include "superacc.hpp"

namespace ndp {

enum class RowsVariant;  // rows_variant.hpp, which is not for files compiled once a level

// Rows that fixed_order adds in turn (docs/ops/layer_norm.md): this never changes.
constexpr int64_t kNormChunk = 32;

// Columns whose exact sums a worker keeps at a time, and the rows it adds before they are checked.
constexpr int64_t kNormExactColumns = 256;
constexpr int64_t kExactRows = 64;

struct ColumnSum {
  Superacc acc;
  bool other;  // whether a term was not -0.0
};

// A matrix of `rows` times `columns` elements of one dtype. P is double for fp64, else float.
struct NormRows {
  bool centred;  // layer_norm; else rms_norm, which has no mean
  int64_t rows;
  int64_t columns;
  double eps;
  const void* x;
  const void* gradient;  // of y; unused forward
  const void* weight;    // P, padded to whole kSumLanes; ones for none
  const void* bias;      // the same; -0.0 for none; unused backward
  void* mean;            // P, of each row; written forward if not null, read backward
  void* scale;           // P, 1/sqrt(variance + eps) of each row
  void* result;          // y forward, the gradient of x backward
  bool past;             // the gradient of x may be stored past the caches; unused forward
};

// What an ISA level brings for one dtype.
struct NormKernels {
  // Rows [first, first + count). scratch: 4 padded rows of P.
  void (*forward)(const NormRows& job, int64_t first, int64_t count, void* scratch);
  // The same for the gradient of x; the rows add their terms of dgamma and dbeta, in turn, to padded
  // rows of P; null for none.
  void (*backward)(const NormRows& job, int64_t first, int64_t count, void* scratch, void* dgamma,
                   void* dbeta);
  // Adds the terms of all rows in `columns` columns, at most kNormExactColumns, to as many
  // sums.
  void (*exact)(const NormRows& job, int64_t first, int64_t columns, ColumnSum* dgamma,
                ColumnSum* dbeta);
  // sums[j] = the sum of parts[i * apart + j] over i < count > 0, for the columns [first, first +
  // columns), multiples of kSumLanes: neighbours are added in rounds, as the chunks of `sum` are.
  void (*fold)(const void* parts, int64_t count, int64_t apart, int64_t first, int64_t columns,
               void* sums);
  void (*widen)(const void* from, int64_t n, void* to);   // to P
  void (*narrow)(const void* from, int64_t n, void* to);  // from P
};

// y, and mean and scale of each row into `statistics`, 2 * rows elements of P, or null.
// weight and bias: columns elements of the dtype, or null.
void layer_norm(Dtype dtype, bool centred, const void* x, int64_t rows, int64_t columns,
                const void* weight, const void* bias, double eps, int threads,
                const std::string& isa, void* y, void* statistics);

// The gradients of x (always), and of weight and bias, where they are not null, in the variant's
// way. weight may be null. The same bits for every level, and for any number of threads but for
// `atomic` and `two_pass`.
void layer_norm_backward(Dtype dtype, bool centred, RowsVariant variant, const void* gradient,
                         const void* x, int64_t rows, int64_t columns, const void* weight,
                         const void* statistics, int threads, const std::string& isa, void* dx,
                         void* dgamma, void* dbeta);

}  // namespace ndp
