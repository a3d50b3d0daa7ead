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

struct DigestedTensor {
  Dtype dtype;
  const void* data;
  Layout layout;
};

// A digest's first and last 16 hex digits.
struct DigestWords {
  uint64_t first, second;
};

// One digest for each tensor. The same for every level, thread count and layout. The threads share
// out the blocks of all tensors alike, whichever tensor these belong to.
std::vector<DigestWords> digests(const std::vector<DigestedTensor>& tensors, int threads,
                                 const std::string& isa);

// The digest of one as 32 hex digits.
std::string digest(Dtype dtype, const void* data, const Layout& layout, int threads,
                   const std::string& isa);

}  // namespace ndp
