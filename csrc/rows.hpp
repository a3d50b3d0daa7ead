// What the drivers of row-wise kernels share: the variants of sums over rows, work for threads,
// and the format of a dtype.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>

#include "dtypes.hpp"
#include "superacc.hpp"
#include "workers.hpp"

namespace ndp {

// How sums over rows are made: dgamma and dbeta, and the mean loss of cross_entropy.
enum class RowsVariant { atomic, two_pass, fixed_order, exact };

// Throws std::invalid_argument for any other name.
inline RowsVariant rows_variant(const std::string& name) {
  if (name == "atomic") return RowsVariant::atomic;
  if (name == "two_pass") return RowsVariant::two_pass;
  if (name == "fixed_order") return RowsVariant::fixed_order;
  if (name == "exact") return RowsVariant::exact;
  throw std::invalid_argument("sums over rows have no variant " + name);
}

// Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16.
inline const Format& row_format(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return kFormat64;
    case Dtype::float32:
      return kFormat32;
    case Dtype::bfloat16:
      return kFormatBf16;
    case Dtype::float16:
      return kFormat16;
    default:
      throw std::invalid_argument("rows are float64, float32, bfloat16 or float16");
  }
}

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
