// The variants of sums over rows.
#pragma once

namespace ndp {

// How sums over rows are made: dgamma and dbeta, and the mean loss of cross_entropy.
enum class RowsVariant { atomic, two_pass, fixed_order, exact };

}  // namespace ndp
