// The variants of sums over rows.
#pragma once

#include <stdexcept>
#include <string>

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

}  // namespace ndp
