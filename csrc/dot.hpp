// Sums of products of two contiguous arrays, three ways. What each promises: docs/ops/dot.md.
#pragma once

#include <cstdint>
#include <string>

#include "binned.hpp"
#include "dtypes.hpp"
#include "sum.hpp"
#include "wideacc.hpp"

namespace ndp {

enum class DotVariant { fixed_order, binned, exact };

// Throws std::invalid_argument for any other name, in the name of `op`.
DotVariant dot_variant(const std::string& op, const std::string& name);

// Products of fp64 by the sum of their operands' biased exponents: 106 bits each, so that 2^21 of
// them add up in 128.
constexpr int kProductBins = 2 * 0x7fe + 1;
constexpr int64_t kProductsBeforeFlush = int64_t{1} << 21;

struct ProductTable {
  __int128 bin[kProductBins];
  int64_t products;  // since the last flush
};

// An exact sum of products on its way.
struct ProductSum {
  WideAcc acc;
  ProductTable* table;  // for many products of fp64; else null
  int exponent;         // of the splits: |product| < 2^exponent in the last block that had to look
  int level;            // parts that the last block needed
};

// Moves what the table holds into the accumulator.
static inline void flush(ProductSum& sum) {
  for (int i = 0; i < kProductBins; ++i) {
    const __int128 bin = sum.table->bin[i];
    if (bin == 0) continue;
    make_room(sum.acc, 1);
    const unsigned __int128 magnitude = static_cast<unsigned __int128>(bin);
    // Biased exponents count from 1 here: two subnormals lie in bin 0.
    deposit_magnitude(sum.acc, bin < 0 ? -magnitude : magnitude, i - 2148, bin < 0);
    sum.table->bin[i] = 0;
  }
  sum.table->products = 0;
}

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
