// What the gradient of an embedding needs beside scatter.hpp.
#pragma once

#include <cstdint>

#include "dtypes.hpp"

namespace ndp {

// Divides the rows of table, [rows, columns], by counts, each element rounded once. A row of count 0
// stays as it is. dtype: float64, float32, bfloat16 or float16; counts below 2^28.
void divide_rows(Dtype dtype, void* table, const int64_t* counts, int64_t rows, int64_t columns);

}  // namespace ndp
