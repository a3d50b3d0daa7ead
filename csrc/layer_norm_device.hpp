// layer_norm and rms_norm on a GPU, with the promises and, but for `atomic` and `two_pass`, the bits
// of layer_norm.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "dtypes.hpp"
#include "rows_variant.hpp"

namespace ndp {

// A contiguous matrix of `rows` times `columns` elements. P is double for fp64, else float.
struct DeviceNorm {
  Dtype dtype;
  bool centred;  // layer_norm; else rms_norm
  int64_t rows, columns;
  const void* x;
  const void* weight;  // `columns` elements, or null
  const void* bias;    // the same; unused backward
  double eps;          // unused backward
  const void* gradient;  // of y; unused forward
  void* statistics;      // 2 * rows of P, mean and scale of each row; forward null for none
  void* result;          // y forward, the gradient of x backward
  int blocks;            // of the launches; 0: as many as the device runs at once
};

// All on the stream; nothing is waited for. Throws std::invalid_argument for a dtype that is not
// taken, std::runtime_error for a launch that fails.
void layer_norm(const DeviceNorm& job, Stream stream);

// Bytes of memory on the device that the gradients of the parameters need beside.
int64_t layer_norm_workspace(const DeviceNorm& job, RowsVariant variant);

// The gradient of x, and of weight and bias where they are not null (bias: only with weight). The
// workspace need not be cleared; none is needed without parameters. Throws as above.
void layer_norm_backward(const DeviceNorm& job, RowsVariant variant, void* dgamma, void* dbeta,
                         void* workspace, Stream stream);

}  // namespace ndp
