// What Python calls the variants. Not for files compiled once a level, which may not throw.
#pragma once

#include <stdexcept>
#include <string>

#include "sum.hpp"
#include "var.hpp"

namespace ndp {

// Throws std::invalid_argument for any other name.
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

// Throws std::invalid_argument for any other name.
inline VarVariant var_variant(const std::string& name) {
  if (name == "two_pass") return VarVariant::two_pass;
  if (name == "fixed_order") return VarVariant::fixed_order;
  if (name == "exact") return VarVariant::exact;
  throw std::invalid_argument("var has no variant " + name);
}

}  // namespace ndp
