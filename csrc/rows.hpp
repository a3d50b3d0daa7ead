// What the drivers of row-wise kernels share: work for threads, and the format of a dtype.
#pragma once

#include <algorithm>

#include "dtypes.hpp"
#include "formats.hpp"
#include "rows_variant.hpp"
#include "superacc.hpp"
#include "workers.hpp"

namespace ndp {

// Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16.
inline const Format& row_format(Dtype dtype) { return format_of(dtype, "an op of rows"); }

// Bytes of an element of the type that rows of `dtype` are computed in.
inline int64_t computed_bytes(Dtype dtype) { return dtype == Dtype::float64 ? 8 : 4; }

// Elements that a worker is started for, at the least.
constexpr int64_t kElementsPerWorker = int64_t{1} << 15;

// Workers for so many tasks and elements.
inline int row_workers(int64_t tasks, int64_t elements, int threads) {
  const int64_t worthwhile = std::min(tasks, elements / kElementsPerWorker);
  return workers_for(worthwhile, threads);
}

// Rows that a worker takes at a time: about 64 Ki elements.
inline int64_t rows_at_a_time(int64_t columns) {
  return std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(columns, 1));
}

}  // namespace ndp
