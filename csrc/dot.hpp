// Sums of products of two contiguous arrays, three ways. What each promises: docs/ops/dot.md.
#pragma once

#include <cstdint>
#include <string>

#include "binned.hpp"
#include "dtypes.hpp"
#include "product_sum.hpp"
#include "sum.hpp"

namespace ndp {

enum class DotVariant { fixed_order, binned, exact };

// What an ISA level brings for one dtype. a and b are contiguous; n counts products.
struct DotKernels {
  // The fixed_order sums of the chunks of n products, in order, into partials (fp64 for fp64, fp32
  // for the others).
  void (*chunks)(const void* a, const void* b, int64_t n, void* partials);
  void (*binned)(const void* a, const void* b, int64_t n, Binned& sum);
  void (*exact)(const void* a, const void* b, int64_t n, ProductSum& sum);
};

// The sum of a[i] * b[i], or its square root where `root` is set and a is b: one element of `dtype`
// to `result`. Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and
// float16. The same bits for every level and any number of threads.
void dot(Dtype dtype, DotVariant variant, bool root, const void* a, const void* b, int64_t n,
         int threads, const std::string& isa, void* result);

}  // namespace ndp
