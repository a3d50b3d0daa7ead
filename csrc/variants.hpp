// The variants by their names, for the bindings. Not in the headers of the ops: the files that are
// compiled once a level include these, and are to throw nothing.
#pragma once

#include <stdexcept>
#include <string>

#include "scatter.hpp"
#include "segment_sum.hpp"
#include "sum.hpp"

namespace ndp {

// Each throws std::invalid_argument for any other name.

inline SumVariant sum_variant(const std::string& name) {
  if (name == "atomic") return SumVariant::atomic;
  if (name == "two_pass") return SumVariant::two_pass;
  if (name == "fixed_order") return SumVariant::fixed_order;
  if (name == "binned") return SumVariant::binned;
  if (name == "exact") return SumVariant::exact;
  if (name == "kahan") return SumVariant::kahan;
  if (name == "pairwise") return SumVariant::pairwise;
  throw std::invalid_argument("sum has no variant " + name);
}

inline ScatterVariant scatter_variant(const std::string& name) {
  if (name == "atomic") return ScatterVariant::atomic;
  if (name == "ordered") return ScatterVariant::ordered;
  if (name == "fixed_point") return ScatterVariant::fixed_point;
  if (name == "exact") return ScatterVariant::exact;
  throw std::invalid_argument("scatter has no variant " + name);
}

inline SegmentVariant segment_variant(const std::string& name) {
  if (name == "atomic") return SegmentVariant::atomic;
  if (name == "ordered") return SegmentVariant::ordered;
  if (name == "exact") return SegmentVariant::exact;
  throw std::invalid_argument("segment_sum has no variant " + name);
}

}  // namespace ndp
