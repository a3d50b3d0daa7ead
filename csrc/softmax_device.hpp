// softmax, log_softmax and cross_entropy on a GPU, with the promises and, but for `atomic` and
// `two_pass`, the bits of softmax.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "dtypes.hpp"
#include "rows_variant.hpp"
#include "softmax.hpp"

namespace ndp {

// A contiguous matrix of `rows` times `columns` elements.
struct DeviceSoftmax {
  Dtype dtype;
  bool log;
  int64_t rows, columns;
  const void* x;         // forward; backward: y
  const void* gradient;  // of y; unused forward
  void* result;          // y forward, the gradient of x backward
  int blocks;            // of the launch; 0: as many as the device runs at once
};

// All on the stream; nothing is waited for. Throws std::invalid_argument for a dtype that is not
// taken, std::runtime_error for a launch that fails.
void softmax(const DeviceSoftmax& job, Stream stream);
void softmax_backward(const DeviceSoftmax& job, Stream stream);

// As in softmax.hpp; P is double for fp64, else float.
struct DeviceEntropy {
  Dtype dtype;
  EntropyOptions options;
  int64_t rows, columns;
  const void* x;
  const int64_t* target;
  const void* weight;    // `columns` elements, or null
  const void* gradient;  // of the result; unused forward
  void* statistics;      // 2 * rows of P; written forward if not null, read backward
  double* weights;       // of the targets, their sum or number; the same
  void* result;          // the loss forward, the gradient of x backward
  int blocks;
};

// Bytes of memory on the device that cross_entropy needs beside. It need not be cleared.
int64_t cross_entropy_workspace(const DeviceEntropy& job, RowsVariant variant);

// As above. A target that is no class leads to no access; the position of the first goes to
// *first_bad, which holds a larger number before.
void cross_entropy(const DeviceEntropy& job, RowsVariant variant, int64_t* first_bad,
                   void* workspace, Stream stream);
void cross_entropy_backward(const DeviceEntropy& job, Stream stream);

}  // namespace ndp
