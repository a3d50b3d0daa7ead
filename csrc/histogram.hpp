// Bins of a histogram: their edges, who is in which, and densities. docs/ops/histogram.md.
#pragma once

#include <cstdint>

#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

// All of them take float64 and float32, and throw std::invalid_argument for another dtype.

// Where bins of equal width begin and end; rounded to the dtype.
struct Range {
  double low, high;
};

// The least and the largest of n elements, 0 and 1 for n = 0; never -0.0. NaN where there is one.
Range range_of(Dtype dtype, const void* x, int64_t n);

// The bins + 1 edges of bins of equal width. Where low equals high, both move away by 0.5. Throws
// std::invalid_argument for a range that is not finite or falls.
void bin_edges(Dtype dtype, Range range, int64_t bins, void* edges);

// The first of n edges that is not at least as large as the one before it; -1 where there is none.
int64_t falling_edge(Dtype dtype, const void* edges, int64_t n);

struct Bins {
  Dtype dtype;
  const void* edges;  // bins + 1 of them, none below the one before it
  int64_t bins;
  bool uniform;  // edges are those of bin_edges; for speed only
};

// The bin of every element: edges[b] <= x < edges[b + 1], and x == edges[bins] is in the last bin.
// `bins` for elements in none of them, NaN among these.
void find_bins(const Bins& bins, const void* x, int64_t n, int threads, int64_t* index);

// How many elements every bin has, and the same rounded to the dtype.
void count_bins(const Bins& bins, const void* x, int64_t n, int threads, int64_t* counts,
                void* hist);

// hist[b] / total / width, in fp64 and then rounded to the dtype; total is that of hist, added from
// left to right.
void normalise(const Bins& bins, void* hist);

// The exact sum of the weights in every bin, as kDigits digits of base 2^32, the last of which is
// signed, in units of 2^kLowestExponent. In specials 1 for positive infinity, 2 for the negative
// one, 4 for NaN. index: as find_bins gives it.
void bin_sums(Dtype dtype, const int64_t* index, const void* weights, int64_t n, int64_t bins,
              int64_t* digits, uint8_t* specials);

}  // namespace ndp
