// Sums over runs of neighbouring rows on a GPU, with the promises and, but for `atomic`, the bits of
// segment_sum.hpp.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "segment_sum.hpp"

namespace ndp {

// What the launches tell the host about the offsets. Zeros before.
struct SegmentState {
  uint64_t negative;  // 0, or INT64_MAX less the number of the first segment of less than no rows
  uint64_t unfit;     // whether the offsets do not begin at 0 or do not end at the number of rows
};

// Segments with addresses of the device. Everything runs on the stream and waits for nothing.
// Offsets that do not rise from 0 to `rows` are noted; the result is then of no use.
struct DeviceSegments {
  Segments job;
  void* result;  // [segments, columns]
  SegmentState* state;
  int blocks;  // of a launch; 0: as many as the device runs at once
};

// Bytes that segment_sum needs beside. Throws std::invalid_argument for a dtype that there is no
// kernel for.
int64_t segment_sum_workspace(SegmentVariant variant, const DeviceSegments& given);
void segment_sum(SegmentVariant variant, const DeviceSegments& given, void* workspace,
                 Stream stream);

}  // namespace ndp
