// Sums over runs of neighbouring rows, three ways. What each promises: docs/ops/segment_sum.md.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

enum class SegmentVariant { atomic, ordered, exact };

// data: [rows, columns]; segment s is rows offsets[s] to offsets[s + 1] - 1. All contiguous.
struct Segments {
  Dtype dtype;
  const void* data;
  int64_t rows;
  int64_t columns;
  const int64_t* offsets;  // segments + 1 of them
  int64_t segments;
};

// result: [segments, columns] of the same dtype. Throws std::invalid_argument for a dtype other than
// float64, float32, bfloat16 and float16, and for offsets that do not rise from 0 to `rows`. But for
// `atomic`, the same bits for every level and any number of threads.
void segment_sum(SegmentVariant variant, const Segments& job, int threads, const std::string& isa,
                 void* result);

// The exact sum of some elements, as high + low, unless `lost` is anything but zero.
struct ExactPair {
  double high;
  double low;
  double lost;
};

// What an ISA level brings for one dtype. x: [rows, columns] with 1 <= rows <= kSumChunk.
struct SegmentKernels {
  // The sum of every column in the order of `fixed_order` (sum.hpp): fp64 for fp64, else fp32.
  void (*ordered)(const void* x, int64_t rows, int64_t columns, void* partials);
  void (*exact)(const void* x, int64_t rows, int64_t columns, ExactPair* pairs);
  // One element after another; x points at the first one of the column.
  void (*deposit)(const void* x, int64_t rows, int64_t columns, Superacc& acc);
};

}  // namespace ndp
