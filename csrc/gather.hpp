// Copies runs of a strided tensor's elements, in row-major order, into contiguous memory.
#pragma once

#include <cstdint>

#include "digest.hpp"

namespace ndp {

class Gather {
 public:
  Gather(const void* data, const Layout& layout, int64_t element_bytes);

  // Whether the elements already lie in row-major order without gaps.
  bool contiguous() const { return shape_.empty() || (shape_.size() == 1 && strides_[0] == size_); }

  // Copy elements [start, start + count) to `to`.
  void copy(int64_t start, int64_t count, unsigned char* to) const;

 private:
  const unsigned char* data_;
  int64_t size_;                  // bytes of one element
  std::vector<int64_t> shape_;    // without dimensions of one element, neighbours merged
  std::vector<int64_t> strides_;  // in bytes
};

}  // namespace ndp
