// Dot products and norms on a GPU, with the promises and the bits of dot.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "dot.hpp"
#include "dtypes.hpp"

namespace ndp {

// a and b are contiguous, of n elements each. The sum of a[i] * b[i], or its square root where
// `root` is set and a is b: one element to `result`.
struct DeviceDot {
  DotVariant variant;
  Dtype dtype;
  bool root;
  const void* a;
  const void* b;
  int64_t n;
  void* result;
  int blocks;  // of the launch; 0: as many as the device runs at once
};

// Bytes of memory on the device that `dot` needs beside. Throws std::invalid_argument for dtypes
// that there is no kernel for.
int64_t dot_workspace(const DeviceDot& job);

// All on the stream; nothing is waited for. The workspace need not be cleared. The same bits for any
// number of blocks. Throws std::runtime_error for a launch that fails.
void dot(const DeviceDot& job, void* workspace, Stream stream);

}  // namespace ndp
