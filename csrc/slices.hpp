// Matrix products in slices that depend on the shape alone, each on one thread: the same bits for
// any number of threads. The arithmetic of a slice is that of the BLAS that torch brings.
#pragma once

#include <cstdint>

namespace ndp {

struct Matrix {
  uintptr_t data;
  int64_t batch_stride, row_stride, column_stride;  // in elements
};

struct Product {
  int64_t batch, m, k, n;
  Matrix a, b, c;  // a [batch, m, k], b [batch, k, n], c [batch, m, n]
  double alpha, beta;
};

// How the product of one pair of matrices is cut. Every count is at least 1; a slice is
// (m / rows) x (k / depth) x (n / columns), rounded up to multiples of 32, the last one shorter.
struct Cut {
  int64_t rows, columns, depth;
};
Cut cut_product(int64_t batch, int64_t m, int64_t k, int64_t n);

// c := beta c + alpha a b; where depth > 1 the slices of k are added in ascending order. False, with
// nothing done, when a stride is not one that BLAS takes, a size exceeds 31 bits, or there is no
// BLAS whose threads can be set. c may not overlap a and b.
template <class Real>
bool product(const Product& given, int threads);

}  // namespace ndp
