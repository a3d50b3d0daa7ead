// The state of an exact sum of products.
#pragma once

#include "superacc.hpp"

namespace ndp {

// How the blocks of one stream of addends are split: |addend| < 2^exponent in the last block that
// had to look, and it took that many parts; or no number of parts did, and `idle` blocks are not
// tried.
struct Splits {
  int exponent;
  int parts;
  int blocks;  // since parts was last 2
  int idle;
};

// An exact sum of products on its way. Products of fp64 are two streams: the rounded products, and
// what the rounding took.
struct ProductSum {
  WideAcc acc;
  Splits high;
  Splits low;
};

static inline void clear(ProductSum& sum) {
  clear(sum.acc);
  sum.high = sum.low = {0, 2, 0, 0};
}

}  // namespace ndp
