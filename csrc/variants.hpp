// The names of variants, for the files that Python calls: apart from the kernels' headers, because
// files that are compiled once a level throw nothing. All throw std::invalid_argument for any
// other name, dot_variant in the name of `op`.
#pragma once

#include <stdexcept>
#include <string>

#include "cumsum.hpp"
#include "dot.hpp"
#include "matmul.hpp"
#include "rows_variant.hpp"
#include "scatter.hpp"
#include "segment_sum.hpp"
#include "sum.hpp"
#include "var.hpp"

namespace ndp {

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

inline RowsVariant rows_variant(const std::string& name) {
  if (name == "atomic") return RowsVariant::atomic;
  if (name == "two_pass") return RowsVariant::two_pass;
  if (name == "fixed_order") return RowsVariant::fixed_order;
  if (name == "exact") return RowsVariant::exact;
  throw std::invalid_argument("sums over rows have no variant " + name);
}

inline VarVariant var_variant(const std::string& name) {
  if (name == "two_pass") return VarVariant::two_pass;
  if (name == "fixed_order") return VarVariant::fixed_order;
  if (name == "exact") return VarVariant::exact;
  throw std::invalid_argument("var has no variant " + name);
}

inline DotVariant dot_variant(const std::string& op, const std::string& name) {
  if (name == "fixed_order") return DotVariant::fixed_order;
  if (name == "binned") return DotVariant::binned;
  if (name == "exact") return DotVariant::exact;
  throw std::invalid_argument(op + " has no variant " + name);
}

inline CumsumVariant cumsum_variant(const std::string& name) {
  if (name == "fixed_order") return CumsumVariant::fixed_order;
  if (name == "exact") return CumsumVariant::exact;
  throw std::invalid_argument("cumsum has no variant " + name);
}

inline MatmulVariant matmul_variant(const std::string& name) {
  if (name == "splitk_atomic") return MatmulVariant::splitk_atomic;
  if (name == "splitk_ordered") return MatmulVariant::splitk_ordered;
  if (name == "fixed_split") return MatmulVariant::fixed_split;
  if (name == "exact") return MatmulVariant::exact;
  throw std::invalid_argument("matmul has no variant " + name);
}

}  // namespace ndp
