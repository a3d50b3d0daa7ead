// Digests of tensors on a GPU, with the values of digest.hpp: docs/digest.md.
#pragma once

#include <cstdint>
#include <vector>

#include "device.hpp"
#include "dtypes.hpp"

namespace ndp {

// A contiguous tensor, at any address that its elements may lie at.
struct DeviceTensor {
  Dtype dtype;
  const void* data;
  std::vector<int64_t> shape;
};

// Bytes of memory on the device that `digest` needs beside, for any number of tensors.
int64_t digest_workspace();

// Writes the digest of tensor i to digests[2 i] and digests[2 i + 1]: the first 16 hex digits, and the
// others. All on the stream, one launch for every 96 tensors; nothing is waited for, and nothing is
// copied to the device, so that a graph may capture it. The workspace need not be cleared. The same
// bits for any number of blocks (0: as many as the device runs at once). Throws
// std::invalid_argument for a number that is no dtype, std::runtime_error for a launch that fails.
void digest(const std::vector<DeviceTensor>& tensors, void* workspace, uint64_t* digests, int blocks,
            Stream stream);

}  // namespace ndp
