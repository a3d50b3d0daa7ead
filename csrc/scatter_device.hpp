// Rows added into a table on a GPU, with the promises and, but for `atomic`, the bits of scatter.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "scatter.hpp"

namespace ndp {

// What the launches of one scatter tell the host in the end. Zeros before the first one.
struct ScatterState {
  uint64_t bad;      // 0, or INT64_MAX less the position of the first index out of range
  uint64_t spilled;  // of `exact`: whether some cells are still to be added by scatter_spilled
};

// A Scatter with addresses of the device. Everything runs on the stream and waits for nothing. A bad
// index is noted and written nowhere; out is then of no more use.
struct DeviceScatter {
  Scatter job;
  ScatterState* state;
  int blocks;  // of a launch; 0: as many as the device runs at once
};

// Bytes that `scatter` needs beside, for `atomic`, `fixed_point` and `exact`. Throws
// std::invalid_argument for `ordered`, which has functions of its own, and for dtypes that there is
// no kernel for.
int64_t scatter_workspace(ScatterVariant variant, const DeviceScatter& given);
void scatter(ScatterVariant variant, const DeviceScatter& given, void* workspace, Stream stream);

// `ordered`: keys[i] becomes the destination of row i, -1 for a bad index; destinations < 2^31.
void scatter_keys(const DeviceScatter& given, int32_t* keys, Stream stream);

// What a stable sort makes of them: keys that do not fall, and the row that each was of.
struct Sorted {
  const int32_t* keys;
  const int64_t* rows;
};

int64_t scatter_ordered_workspace(const DeviceScatter& given);
void scatter_ordered(const DeviceScatter& given, const Sorted& sorted, void* workspace,
                     Stream stream);

// The cells that `exact` left, by fixed-point numbers of 70 digits; workspace: the one that `scatter`
// was given.
void scatter_spilled(const DeviceScatter& given, const Sorted& sorted, const void* workspace,
                     Stream stream);

}  // namespace ndp
