// How often each number occurs.
#pragma once

#include <cstdint>

#include "dtypes.hpp"

namespace ndp {

// counts[b] becomes the number of i < n with index[i] == b. 0 <= index[i] < bins is not checked.
void count(const int64_t* index, int64_t n, int64_t bins, int threads, int64_t* counts);

// n weights of bfloat16, float16 or int64 as float64, integers rounded to nearest even. Throws
// std::invalid_argument for another dtype.
void widen(Dtype dtype, const void* x, int64_t n, double* wide);

}  // namespace ndp
