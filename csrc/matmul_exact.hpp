// Elements of a matrix product, each the exact sum of its products, rounded once.
#pragma once

#include <cstdint>

#include "isa.hpp"
#include "matmul.hpp"
#include "sum.hpp"

namespace ndp {

class ExactDots {
 public:
  // Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16.
  ExactDots(Dtype dtype, Isa isa);

  // Elements of a tile share the work of converting their lines.
  static constexpr int64_t kSide = 8;

  // Bytes that `tile` works in.
  int64_t room() const;

  // Lines of a times lines of b, at most kSide of each; element (i, j) to
  // result[i * row_stride + j]. DefaultFloatMode is on.
  void tile(const Factor& a, int64_t rows, const Factor& b, int64_t columns, int64_t k,
            void* result, int64_t row_stride, void* room) const;

 private:
  Dtype dtype_;
  Format format_;
  // The exact sum of fp64 numbers: products of the narrower formats are such numbers.
  void (*sum_)(const void* x, int64_t n, ExactSum& sum);
};

}  // namespace ndp
