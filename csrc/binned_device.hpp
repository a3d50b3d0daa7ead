// Binned sums on the device: a warp's tile cut on the grid of binned.hpp.
#pragma once

#include "binned.hpp"
#include "device.hpp"
#include "elements.hpp"
#include "exact_device.hpp"

namespace ndp {

// The top bin of the largest fp64 numbers.
constexpr int kHighestTop = 25;

// A warp's tile. Every slice is a whole number of units, below 2^39, so that doubles add them
// without rounding. False in all lanes, and nothing added, where an element is no finite number or
// the top bin would not lie in [lowest, highest].
template <int bins>
__device__ inline bool bin_tile(const double (&x)[kTileLane], Binned& sum, int lowest, int highest) {
  double most = 0;
  bool special = false;
#pragma unroll
  for (int i = 0; i < kTileLane; ++i) {
    const double magnitude = x[i] < 0 ? -x[i] : x[i];
    special |= !(magnitude <= 0x1.fffffffffffffp1023);
    most = magnitude > most ? magnitude : most;
  }
  if (__any_sync(kAllLanes, special)) return false;
  int exponent;
  {
    uint64_t bits;
    std::memcpy(&bits, &most, sizeof bits);
    // Of a subnormal number too: its highest bit decides the top bin.
    exponent = bits >> 52 != 0 ? static_cast<int>(bits >> 52) - 1022
               : bits != 0     ? 64 - leading_zeros(bits) - 1074
                               : -1074;
  }
  exponent = static_cast<int>(
                 __reduce_max_sync(kAllLanes, static_cast<unsigned>(exponent + 2048))) -
             2048;
  const int tile_top = unbounded_top_bin(exponent);
  const int top = tile_top > sum.top ? tile_top : sum.top;
  __syncwarp();
  if (top < lowest || top > highest) return false;
  double scale;
  {
    const uint64_t bits = static_cast<uint64_t>(1023 - kBinBits * top) << 52;
    std::memcpy(&scale, &bits, sizeof scale);
  }
  double slices[bins] = {};
#pragma unroll
  for (int i = 0; i < kTileLane; ++i) {
    double rest = x[i] * scale;
    double grid = 0x1.8p52;
#pragma unroll
    for (int bin = 0; bin < bins; ++bin) {
      const double slice = (rest + grid) - grid;
      slices[bin] += slice;
      rest -= slice;
      grid *= 0x1p-40;
    }
  }
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2)
#pragma unroll
    for (int bin = 0; bin < bins; ++bin)
      slices[bin] += __shfl_xor_sync(kAllLanes, slices[bin], by);
  if (threadIdx.x % kWarp == 0) {
    raise_top(sum, top);
    double unit = 1.0;
    for (int bin = 0; bin < bins; ++bin) {
      sum.bin[bin] += static_cast<int64_t>(slices[bin] * unit);
      unit *= 0x1p40;
    }
  }
  __syncwarp();
  return true;
}

// The infinities and NaNs among a lane's elements.
__device__ inline unsigned specials_of(const double (&x)[kTileLane]) {
  unsigned flags = 0;
  for (int i = 0; i < kTileLane; ++i) {
    if (x[i] != x[i])
      flags |= kNan;
    else if (x[i] - x[i] != 0)
      flags |= x[i] > 0 ? kPositiveInfinity : kNegativeInfinity;
  }
  return flags;
}

}  // namespace ndp
