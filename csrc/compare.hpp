// Two arrays of the same dtype and length, compared bit for bit in one pass.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"

namespace ndp {

// Stands for "further than can be counted": one of two different elements is NaN, or two fp64
// elements lie 2^63 - 1 or more floats apart.
constexpr int64_t kUlpMax = INT64_MAX;

// Buckets of a histogram of ulp distances: 0 for equal bits, k for 2^(k-1) <= distance < 2^k, and
// the last for distances that cannot be counted.
constexpr int kUlpBuckets = 65;

// What one chunk, or a whole comparison, found. Sums are float64, in an order that depends on the
// length alone: 8 lanes (element i in lane i mod 8), added as ((0+4)+(2+6))+((1+5)+(3+7)) at the
// end of every chunk; chunks in order.
struct Compared {
  int64_t different = 0;   // elements whose bits differ
  int64_t max_ulp = 0;     // 0 for dtypes that have no ulp
  int64_t first = -1;      // index of the first different element
  double sum_squares_difference = 0.0;  // equal bits add nothing, those of NaN and inf included
  double sum_squares = 0.0;             // of a
  double sum_squares_other = 0.0;       // of b
  double dot = 0.0;                     // of a and b
  int64_t ulps[kUlpBuckets] = {};       // all 0 for dtypes that have no ulp
};

constexpr int64_t kCompareChunk = 16384;  // elements

// The same for every level and thread count.
Compared compare(Dtype dtype, const void* a, const void* b, int64_t elements, int threads,
                 const std::string& isa);

// distances[i] = floats between a[i] and b[i], saturated at kUlpMax; real floating dtypes only.
void ulp_distance(Dtype dtype, const void* a, const void* b, int64_t elements, int64_t* distances,
                  const std::string& isa);

}  // namespace ndp
