// The sum of a contiguous array, four ways. What each promises: docs/ops.md.
#pragma once

#include <cstdint>
#include <string>

#include "binned.hpp"
#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

enum class SumVariant { atomic, fixed_order, binned, exact };

// Throws std::invalid_argument for any other name.
SumVariant sum_variant(const std::string& name);

// `fixed_order` is a format (docs/ops.md): these two never change.
constexpr int64_t kSumChunk = 4096;  // elements
constexpr int kSumLanes = 64;

// What a worker takes at a time. A whole piece is read as four runs side by side, a quarter of it
// each: the processor's prefetching stops at the end of a page, and with one run alone so does the
// reading (Zen 4, 256 MB of small pages: 32 against 25 GB/s).
constexpr int64_t kPieceBytes = int64_t{4} << 20;
constexpr int kRuns = 4;

// Elements that the exact kernel adds, checks and, where the check fails, adds again from cache.
constexpr int64_t kExactBlock = 16384;

// An exact sum on its way: the digits, and what worked for the last block.
struct ExactSum {
  Superacc acc;
  int base_level;  // where blocks start: 0 plain additions, 1 split in two, 2 split in three
  int level;       // where the next block starts; kept above base_level for a while after a miss
  int since_base;  // blocks since base_level was last tried
  int exponent;    // of the splits: |x| < 2^exponent in the last block that had to look
};

// What an ISA level brings for one dtype. x is contiguous; n counts elements.
struct SumKernels {
  // The fixed_order sums of the chunks of n elements, in order, into partials (fp64 for fp64, fp32
  // for the others).
  void (*chunks)(const void* x, int64_t n, void* partials);
  void (*binned)(const void* x, int64_t n, Binned& sum);
  void (*exact)(const void* x, int64_t n, ExactSum& sum);
};

// Writes one element of `dtype` to `result`. Throws std::invalid_argument for a dtype other than
// float64, float32, bfloat16 and float16. But for `atomic`, the same bits for every level and any
// number of threads.
void sum(Dtype dtype, SumVariant variant, const void* x, int64_t n, int threads,
         const std::string& isa, void* result);

}  // namespace ndp
