// The digest of a tensor's bits, dtype and shape: docs/digest.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dtypes.hpp"

namespace ndp {

// Where a tensor's elements lie. strides are in elements.
struct Layout {
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// The digest as 32 hex digits. The same for every level, thread count and layout.
std::string digest(Dtype dtype, const void* data, const Layout& layout, int threads,
                   const std::string& isa);

}  // namespace ndp
