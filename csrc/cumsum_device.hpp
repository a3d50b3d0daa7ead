// Prefix sums on a GPU, with the promises and the bits of cumsum.hpp.
#pragma once

#include <cstdint>

#include "cumsum.hpp"
#include "device.hpp"
#include "dtypes.hpp"

namespace ndp {

// x and sums are contiguous [rows, n].
struct DeviceCumsum {
  CumsumVariant variant;
  Dtype dtype;
  const void* x;
  int64_t rows, n;
  void* sums;
  int blocks;  // of the launch; 0: as many as the device runs at once
};

// Bytes of memory on the device that `cumsum` needs beside. Throws std::invalid_argument for dtypes
// that there is no kernel for.
int64_t cumsum_workspace(const DeviceCumsum& job);

// All on the stream; nothing is waited for. The workspace need not be cleared. The same bits for any
// number of blocks. Throws std::runtime_error for a launch that fails.
void cumsum(const DeviceCumsum& job, void* workspace, Stream stream);

}  // namespace ndp
