// Products of matrices, four ways. What each promises, and the order of `fixed_split`:
// docs/ops/matmul.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dtypes.hpp"

namespace ndp {

enum class MatmulVariant { splitk_atomic, splitk_ordered, fixed_split, exact };

// `fixed_split` is a format (docs/ops/matmul.md): the terms of one chain of fused multiply-adds.
constexpr int64_t kMatmulBlock = 256;
// `splitk_ordered`: at most so many slices, each a whole number of blocks.
constexpr int64_t kMatmulSlices = 16;

// One factor: lines (rows of a, columns of b) of elements k = 0, 1, ... Strides in elements.
struct Factor {
  const void* data;
  int64_t line_stride;
  int64_t k_stride;
};

// What an ISA level brings for one dtype. Sums are fp64 for fp64, fp32 for the others, and lie at
// sums[i * sums_stride + j] for line i of a and line j of b.
struct MatmulKernels {
  // Lines that are worked on together, and the rows and columns of a tile are multiples of.
  int a_lines;
  int b_lines;
  // Room that `product` needs, in sums, for this many lines of a and of b.
  int64_t (*room)(int64_t rows, int64_t columns, int64_t k);
  // The `fixed_split` sums over k terms, unrounded. `columns` counts lines of b; a row of `sums`
  // has room for the next multiple of b_lines. k > 0.
  void (*product)(const Factor& a, const Factor& b, int64_t rows, int64_t columns, int64_t k,
                  void* sums, int64_t sums_stride, void* room);
  // sums[i] += other[i], then sums to elements: rounded once, NaN as the positive quiet one.
  void (*add)(void* sums, const void* other, int64_t count);
  void (*round)(const void* sums, int64_t sums_stride, int64_t rows, int64_t columns, void* to,
                int64_t row_stride, int64_t column_stride);
};

// result = a b for every batch. a: batch + (m, k), b: batch + (k, n), any strides (in elements, 0
// where a batch dimension is broadcast); result: contiguous batch + (m, n).
struct Matmul {
  Dtype dtype;
  const void* a;
  const void* b;
  void* result;
  std::vector<int64_t> batch, a_batch_strides, b_batch_strides;
  int64_t m, n, k;
  int64_t a_row_stride, a_k_stride, b_k_stride, b_column_stride;
};

// Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16. But
// for `splitk_atomic`, the same bits for every level and any number of threads.
void matmul(const Matmul& job, MatmulVariant variant, int threads, const std::string& isa);

}  // namespace ndp
