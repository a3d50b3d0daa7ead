// Products of matrices on a GPU, with the promises and, but for `splitk_atomic`, the bits of matmul.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "matmul.hpp"

namespace ndp {

// Bytes of memory on the device that `matmul` needs beside. Throws std::invalid_argument for dtypes
// that there is no kernel for.
int64_t matmul_workspace(const Matmul& job, MatmulVariant variant);

// All on the stream; nothing is waited for. The workspace need not be cleared. blocks: of a launch; 0:
// as many as the device runs at once; but for `splitk_atomic` the same bits for any number. Throws
// std::invalid_argument for more than 6 batch dimensions that cannot be merged, std::runtime_error
// for a launch that fails.
void matmul(const Matmul& job, MatmulVariant variant, void* workspace, int blocks, Stream stream);

}  // namespace ndp
