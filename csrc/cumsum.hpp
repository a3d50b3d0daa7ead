// Prefix sums of the rows of a contiguous matrix, two ways. What each promises: docs/ops/cumsum.md.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"
#include "sum.hpp"
#include "superacc.hpp"

namespace ndp {

enum class CumsumVariant { fixed_order, exact };

// `fixed_order` is a format (docs/ops/cumsum.md): these two never change. In elements.
constexpr int64_t kScanBlock = 64;
constexpr int64_t kScanChunk = 64 * kScanBlock;

// What an ISA level brings for one dtype: chunks in fixed order, n <= kScanChunk elements. Totals
// and offsets are fp64 for fp64, fp32 for the others.
struct CumsumKernels {
  void (*total)(const void* x, int64_t n, void* total);
  // Writes n prefix sums, each with *offset in front; the total is without it.
  void (*scan)(const void* x, int64_t n, const void* offset, void* sums, void* total);
};

// Writes rows * n elements of `dtype`. Throws std::invalid_argument for a dtype other than float64,
// float32, bfloat16 and float16. The same bits for every level and any number of threads.
void cumsum(Dtype dtype, CumsumVariant variant, const void* x, int64_t rows, int64_t n, int threads,
            const std::string& isa, void* sums);

}  // namespace ndp
