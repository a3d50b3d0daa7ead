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

// Throws std::invalid_argument for any other name, in the name of `op`.
DotVariant dot_variant(const std::string& op, const std::string& name);

// The lowest top bins of binned products, where no bit is lost: three bins below that of fp64 end at
// 2^-2160 < 2^-2148, two below that of the narrower formats at 2^-400 < 2^-298.
constexpr int kLowestProductTop64 = -52;
constexpr int kLowestProductTop32 = -9;

// The top bin for products with |p| < 2^exponent, were there no lowest one.
static inline int product_top_bin(int exponent) {
  return exponent >= 0 ? exponent / kBinBits : -((kBinBits - 1 - exponent) / kBinBits);
}

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
