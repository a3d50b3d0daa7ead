// The Euclidean norm of a contiguous array, three ways. What each promises: docs/ops/norm.md.
#pragma once

#include "dot.hpp"

namespace ndp {

// Writes one element of `dtype` to `result`. Throws std::invalid_argument for a dtype other than
// float64, float32, bfloat16 and float16. The same bits for every level and any number of threads.
void norm(Dtype dtype, DotVariant variant, const void* x, int64_t n, int threads,
          const std::string& isa, void* result);

}  // namespace ndp
