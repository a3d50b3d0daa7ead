// Variances and means on a GPU, with the promises and, but for `two_pass`, the bits of var.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "dtypes.hpp"
#include "var.hpp"

namespace ndp {

// x: `rows` contiguous rows of n > 0 elements. var, mean: `rows` elements.
struct DeviceVar {
  VarVariant variant;
  Dtype dtype;
  const void* x;
  int64_t rows, n;
  int64_t correction;
  void* var;
  void* mean;
  int blocks;  // of the launches; 0: as many as the device runs at once
};

// Bytes of memory on the device that var_mean needs beside. It need not be cleared.
int64_t var_mean_workspace(const DeviceVar& job);

// All on the stream; nothing is waited for. Throws std::invalid_argument for a dtype that is not
// taken, std::runtime_error for a launch that fails.
void var_mean(const DeviceVar& job, void* workspace, Stream stream);

}  // namespace ndp
