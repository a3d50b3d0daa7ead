// Adding rows into the rows of a table that an index names, four ways: what index_add, scatter_add,
// index_put(accumulate), the backward of indexing and the histograms have in common. What each
// variant promises: docs/ops/scatter.md.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

enum class ScatterVariant { atomic, ordered, fixed_point, exact };

// Throws std::invalid_argument for any other name.
ScatterVariant scatter_variant(const std::string& name);

// out: [destinations, columns], contiguous, holding the initial values; source: [n, columns],
// contiguous. out[index[i], :] += source[i, :] for every i < n.
struct Scatter {
  Dtype dtype;
  void* out;
  const int64_t* index;
  const void* source;
  int64_t n;
  int64_t columns;
  int64_t destinations;
};

// The position of the first index that is not in [0, destinations), -1 where there is none. When
// there is one, out holds nothing of use.
// Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16. But
// for `atomic`, the same bits for every level and any number of threads.
int64_t scatter(ScatterVariant variant, const Scatter& job, int threads, const std::string& isa);

// The position of the first index that is not in [low, high), -1 where there is none. Unless
// `wrapped` is null, it takes the indices, the negative ones with `high` added.
int64_t check_indices(const int64_t* index, int64_t n, int64_t low, int64_t high,
                      int64_t* wrapped);

}  // namespace ndp
