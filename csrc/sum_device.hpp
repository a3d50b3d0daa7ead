// Sums and means on a GPU, with the promises and, from `fixed_order` on, the bits of sum.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "dtypes.hpp"
#include "sum.hpp"

namespace ndp {

// x is contiguous [outer, n, inner]; its sums over the middle go to results [outer, inner].
struct DeviceSum {
  SumVariant variant;
  Dtype dtype;
  bool mean;
  const void* x;
  int64_t outer, n, inner;
  void* results;
  int blocks;  // of the launch; 0: as many as the device runs at once
};

// Bytes of memory on the device that `sum` needs beside. Throws std::invalid_argument for variants
// and dtypes that there is no kernel for.
int64_t sum_workspace(const DeviceSum& job);

// All on the stream; nothing is waited for. The workspace need not be cleared. But for `atomic` and
// `two_pass`, the same bits for any number of blocks. Throws std::runtime_error for a launch that fails.
void sum(const DeviceSum& job, void* workspace, Stream stream);

}  // namespace ndp
