// Sums and means of strided tensors, over all elements or over dimensions, seven ways. What each
// promises: docs/ops.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "binned.hpp"
#include "digest.hpp"
#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

// variants.hpp reads their names.
enum class SumVariant { atomic, two_pass, fixed_order, binned, exact, kahan, pairwise };

// `fixed_order`, `pairwise` and `kahan` are formats (docs/ops.md): these two never change.
constexpr int64_t kSumChunk = 4096;  // elements
constexpr int kSumLanes = 64;

// What a worker takes at a time. A whole piece is read as four runs side by side, a quarter of it
// each: the processor's prefetching stops at the end of a page, and with one run alone so does the
// reading (Zen 4, 256 MB of small pages: 32 against 25 GB/s).
constexpr int64_t kPieceBytes = int64_t{4} << 20;
constexpr int kRuns = 4;

// Elements that the exact kernel adds, checks and, where the check fails, adds again from cache.
constexpr int64_t kExactBlock = 16384;

// Sums apart by exponent, for blocks too wide for anything quicker: bin e holds the significands of
// all elements with biased exponent e, as integers. 2^74 of them fit.
struct ExponentBins {
  __int128 bin[2047];
};

static inline void add_bins(const ExponentBins& bins, Superacc& acc) {
  for (int biased = 0; biased < 2047; ++biased) {
    const __int128 sum = bins.bin[biased];
    if (sum == 0) continue;
    make_room(acc, 1);
    const auto magnitude = static_cast<unsigned __int128>(sum);
    deposit_magnitude(acc, sum < 0 ? -magnitude : magnitude, (biased == 0 ? 1 : biased) - 1075,
                      sum < 0);
  }
}

// An exact sum on its way: the digits, and what worked for the last block.
struct ExactSum {
  Superacc acc;
  ExponentBins* bins;  // room for them; what is in it counts only if bins_used
  bool bins_used;
  int base_level;  // where blocks start: 0 plain additions, 1 split in two, 2 split in three
  int level;       // where the next block starts; kept above base_level for a while after a miss
  int since_base;  // blocks since base_level was last tried
  int exponent;    // of the splits: |x| < 2^exponent in the last block that had to look
};

// A sum with what additions lost of it: the number is sum - lost.
template <class T>
struct Compensated {
  T sum;
  T lost;
};

// What the addition of the two sums loses is found exactly (Knuth). Nothing is lost of an infinity.
template <class T>
NDP_HD static inline Compensated<T> add(const Compensated<T>& a, const Compensated<T>& b) {
  const T sum = a.sum + b.sum;
  const T of_b = sum - a.sum;
  const T lost = (sum - of_b - a.sum) + (of_b - b.sum);
  return {sum, lost - lost == 0 ? lost + (a.lost + b.lost) : T{0}};
}

// What an ISA level brings for one dtype, for elements one after the other; n counts them. Partials
// are of fp64 for fp64, of fp32 for the others.
struct SumKernels {
  // The fixed_order sums of the chunks of n elements, in order.
  void (*chunks)(const void* x, int64_t n, void* partials);
  void (*binned)(const void* x, int64_t n, Binned& sum);
  void (*exact)(const void* x, int64_t n, ExactSum& sum);
  // The sum as high + low, exactly; n <= kExactBlock. False where that is not to be had quickly. Only
  // for processors that keep the inexact flag. Of a zero the sign may be wrong.
  bool (*exact_pair)(const void* x, int64_t n, double* high, double* low);
};

// The same for the accuracy baselines, whose chunks are those of fixed_order with other trees.
struct BaselineKernels {
  void (*pairwise_chunks)(const void* x, int64_t n, void* partials);
  void (*kahan_chunks)(const void* x, int64_t n, void* compensated);
};

// Rows of a matrix, each with its columns one after the other. Strides are in elements.
struct Rows {
  const void* x;
  int64_t stride;         // from row to row, where `offset` is null
  const int64_t* offset;  // else where each row starts
};

// Exact sums of neighbouring columns on their way: in each column the number is acc + sum + low.
struct ExactColumns {
  double* sum;
  double* low;
  Superacc* acc;
  bool sum_used, low_used, acc_used;  // whether what is in them counts
  int base_level;                     // as in ExactSum
  int level;
  int since_base;
  int exponent;
};

// The most that the column kernels are given of a row at a time: so much that reading it is worth
// the start, and little enough that what they keep of every column stays in the cache. The splits of
// fp64 keep more.
constexpr int64_t kColumnsBytes = 16384;  // of partials
constexpr int64_t kExactColumns = 4096;
constexpr int64_t kExactColumns64 = 512;

// And for sums down the columns.
struct ColumnKernels {
  // The fixed_order sums of one chunk of every column: rows <= kSumChunk.
  void (*chunk)(const Rows& x, int64_t rows, int64_t columns, void* partials);
  void (*exact)(const Rows& x, int64_t rows, int64_t columns, ExactColumns& sums);
};

// What is to be done with the elements. Raises nothing later that it does not raise at once.
struct SumTask {
  Dtype dtype;
  SumVariant variant;
  bool mean;
  int threads;
};

// Writes one element of task.dtype to `result`: of n elements that lie one after the other. Throws
// std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16. But for
// `atomic` the same bits for every level, and but for `two_pass` for any number of threads.
void sum(const SumTask& task, const void* x, int64_t n, const std::string& isa, void* result);

// The same over the dimensions marked in `reduced`, for each place in the others: the results lie
// row-major. The elements of a sum are in the row-major order of the reduced dimensions.
void sum_over(const SumTask& task, const void* x, const Layout& layout,
              const std::vector<bool>& reduced, const std::string& isa, void* results);

}  // namespace ndp
