// What the kernels of scatter*.cu share.
#pragma once

#include <cstdint>

#include "exact_device.hpp"
#include "launches.hpp"
#include "scatter_device.hpp"

namespace ndp {

// Of a cell, beside those of exact_device.hpp: an addend that its integers do not hold.
constexpr unsigned kSpilled = 16;
// Of the first cell of a row: something was added to the row.
constexpr unsigned kTouched = 128;
constexpr unsigned kSpecials = kNan | kPositiveInfinity | kNegativeInfinity;

// What a special number makes of its sum; 0 for a finite one.
__device__ inline unsigned special_of(double x) {
  if (x - x == 0) return 0;
  return x != x ? kNan : x > 0 ? kPositiveInfinity : kNegativeInfinity;
}

// The destination of row i, or -1 for a bad index, which is noted.
__device__ inline int64_t destination_of(const Scatter& job, int64_t i, ScatterState* state) {
  int64_t at = job.index[i];
  const int64_t size = job.grid.size > 0 ? job.grid.size : job.destinations;
  if (job.wrap && at < 0) at += size;
  if (at < 0 || at >= size) {
    atomicMax(reinterpret_cast<unsigned long long*>(&state->bad),
              static_cast<unsigned long long>(INT64_MAX - i));
    return -1;
  }
  if (job.grid.size > 0)
    at = (i / job.grid.span * job.grid.size + at) * job.grid.inner + i % job.grid.inner;
  return at;
}

// Every NaN becomes the positive quiet one.
template <class T>
__global__ void __launch_bounds__(kBlockThreads) scatter_nans(T* out, int64_t cells) {
  const Format format = format_of_element<T>();
#pragma unroll 4
  for (int64_t i = own_thread(); i < cells; i += all_threads())
    if ((bits_of(out[i]) & ~format.sign) > format.infinity)
      out[i] = element_of<T>(format.quiet_nan);
}

template <class T>
void make_nans_equal(const DeviceScatter& given, Stream stream) {
  const int64_t cells = given.job.destinations * given.job.columns;
  NDP_LAUNCH((scatter_nans<T>), grid_for(cells, given.blocks), kBlockThreads, stream,
             static_cast<T*>(given.job.out), cells);
}

// What `exact` and `fixed_point` know of all elements.
struct Overview {
  unsigned long long largest;  // the magnitude bits of the largest finite number
  unsigned flags;              // kNegativeZero, kMarked
};
constexpr unsigned kNegativeZero = 32;  // an initial value is -0
constexpr unsigned kMarked = 64;        // the mark of some cell is not 0

// Their workspace: integers for every cell, several levels of them and several copies, and a mark,
// which holds flags. All of it is cleared before.
struct FixedTables {
  Overview* overview;
  int64_t* totals;  // [copies, levels, cells]
  unsigned* marks;  // [cells]
  int64_t copies, levels, cells;

  FixedTables(const Scatter& job, bool exact, void* workspace)
      : levels(!exact ? 1 : job.dtype == Dtype::float64 ? 3 : 2),
        cells(job.destinations * job.columns) {
    // Additions to one address wait for each other: few cells are kept several times.
    constexpr int64_t kCopiedCells = 1 << 16;
    constexpr int64_t kMostCopies = 32;
    copies = std::clamp<int64_t>(kCopiedCells / std::max<int64_t>(cells, 1), 1, kMostCopies);
    overview = static_cast<Overview*>(workspace);
    totals = reinterpret_cast<int64_t*>(overview + 1);
    marks = reinterpret_cast<unsigned*>(totals + copies * levels * cells);
  }
  int64_t bytes() const {
    return static_cast<int64_t>(sizeof(Overview)) + copies * levels * cells * 8 + cells * 4;
  }
};

}  // namespace ndp
