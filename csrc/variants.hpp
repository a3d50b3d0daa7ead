// The names of variants, for what Python calls. Not in the headers of the ops: files compiled for an
// instruction set include those, and must not define functions that others share.
#pragma once

#include <stdexcept>
#include <string>

#include "cumsum.hpp"
#include "dot.hpp"
#include "matmul.hpp"
#include "sum.hpp"

namespace ndp {

// Each throws std::invalid_argument for any other name; dot_variant in the name of `op`.
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
