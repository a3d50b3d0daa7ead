// Counts, bins of a histogram, and quotients on the device.
#include "bins_device.hpp"
#include "exact_device.hpp"
#include "launches.hpp"

namespace ndp {

namespace {

// ---- counts. A block counts few bins in shared memory, in 32 bits: a block has fewer elements.

constexpr int64_t kSharedBins = 8192;

// ready() is the bin of element i, as a function; outside of [0, bins) for none.
struct Given {
  const int64_t* index;
  __device__ Given ready() const { return *this; }
  __device__ int64_t operator()(int64_t i) const { return index[i]; }
};

template <class T>
struct Finder {
  const T* x;
  const T* edges;
  int64_t bins;
  bool uniform;

  // What is the same for all elements, in registers.
  struct Ready {
    Finder of;
    T low, high;
    double per_width;  // NaN: no guess

    __device__ int64_t operator()(int64_t i) const {
      const T value = of.x[i];
      if (!(value >= low && value <= high)) return of.bins;
      // Where the bin would be if edges were not rounded; for speed alone.
      const double place = (static_cast<double>(value) - static_cast<double>(low)) * per_width;
      if (place >= 0 && place < 0x1p62) {
        const int64_t found = static_cast<int64_t>(place);
        const int64_t guess = found < of.bins - 1 ? found : of.bins - 1;
        if (of.edges[guess] <= value && value < of.edges[guess + 1]) return guess;
      }
      // The last edge that is not above; of bins without width at one place the last.
      int64_t below = 0, above = of.bins + 1;
      while (above - below > 1) {
        const int64_t middle = below + (above - below) / 2;
        (of.edges[middle] <= value ? below : above) = middle;
      }
      return below < of.bins ? below : of.bins - 1;
    }
  };

  __device__ Ready ready() const {
    const T low = edges[0], high = edges[bins];
    const double width = static_cast<double>(high) - static_cast<double>(low);
    const double per_width = static_cast<double>(bins) / width;
    return {*this, low, high, uniform ? per_width : __longlong_as_double(-1)};
  }
};

__device__ inline void count_one(unsigned long long* counts, int64_t bin, unsigned long long many) {
  atomicAdd(&counts[bin], many);
}

template <class Find>
__global__ void __launch_bounds__(kBlockThreads)
    count_in_blocks(Find find, int64_t n, int64_t bins, unsigned long long* counts) {
  NDP_SHARED(unsigned, own, kSharedBins);
  const auto bin_of = find.ready();
  for (int64_t bin = threadIdx.x; bin < bins; bin += kBlockThreads) own[bin] = 0;
  __syncthreads();
#pragma unroll 4
  for (int64_t i = own_thread(); i < n; i += all_threads()) {
    const int64_t bin = bin_of(i);
    if (bin >= 0 && bin < bins) atomicAdd(&own[bin], 1u);
  }
  __syncthreads();
  for (int64_t bin = threadIdx.x; bin < bins; bin += kBlockThreads)
    if (own[bin] != 0) count_one(counts, bin, own[bin]);
}

template <class Find>
__global__ void __launch_bounds__(kBlockThreads)
    count_at_once(Find find, int64_t n, int64_t bins, unsigned long long* counts) {
  const auto bin_of = find.ready();
#pragma unroll 4
  for (int64_t i = own_thread(); i < n; i += all_threads()) {
    const int64_t bin = bin_of(i);
    if (bin >= 0 && bin < bins) count_one(counts, bin, 1);
  }
}

template <class Find>
void count_all(const Find& find, int64_t n, int64_t bins, int64_t* counts, int blocks,
               Stream stream) {
  clear_on(stream, counts, static_cast<size_t>(bins) * sizeof *counts);
  auto* to = reinterpret_cast<unsigned long long*>(counts);
  if (bins <= kSharedBins && n >> 31 == 0)
    // A block that has fewer elements than bins spends its time on these.
    NDP_LAUNCH((count_in_blocks<Find>),
               grid_for(std::min(n, divided_up(n, bins + 1) * kBlockThreads), blocks),
               kBlockThreads, stream, find, n, bins, to);
  else
    NDP_LAUNCH((count_at_once<Find>), grid_for(n, blocks), kBlockThreads, stream, find, n, bins,
               to);
}

// ---- indices, bins, quotients

__global__ void __launch_bounds__(kBlockThreads)
    check_range(const int64_t* index, int64_t n, int64_t low, int64_t high, int64_t* wrapped,
                uint64_t* bad) {
#pragma unroll 4
  for (int64_t i = own_thread(); i < n; i += all_threads()) {
    const int64_t at = index[i];
    if (at < low || at >= high)
      atomicMax(reinterpret_cast<unsigned long long*>(bad),
                static_cast<unsigned long long>(INT64_MAX - i));
    if (wrapped != nullptr) wrapped[i] = at < 0 ? at + high : at;
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    find_all(Finder<T> find, int64_t n, int64_t* index) {
  const auto bin_of = find.ready();
#pragma unroll 4
  for (int64_t i = own_thread(); i < n; i += all_threads()) index[i] = bin_of(i);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    divide_cells(T* table, const int64_t* counts, int64_t cells, int64_t columns) {
  for (int64_t i = own_thread(); i < cells; i += all_threads()) {
    const int64_t count = counts[i / columns];
    // csrc/embedding.cpp says why the rounding to fp64 does no harm.
    if (count > 1) table[i] = rounded_to<T>(value_of(table[i]) / static_cast<double>(count));
  }
}

// ---- the digits of exact bins, for densities, which cost far more than this

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    add_weights(const int64_t* index, const T* weights, int64_t n, int64_t bins,
                ExactTotal* totals) {
  for (int64_t i = own_thread(); i < n; i += all_threads()) {
    const int64_t bin = index[i];
    if (bin >= 0 && bin < bins) deposit_shared(totals[bin], value_of(weights[i]));
  }
}

__global__ void __launch_bounds__(kBlockThreads)
    write_digits(const ExactTotal* totals, int64_t bins, int64_t* digits, uint8_t* specials) {
  for (int64_t bin = own_thread(); bin < bins; bin += all_threads()) {
    int64_t over = 0;
    for (int i = 0; i < kDigits; ++i) {
      const int64_t value = totals[bin].digit[i] + over;
      digits[bin * kDigits + i] = i + 1 < kDigits ? value & 0xffffffff : value;
      over = value >> 32;
    }
    const unsigned flags = totals[bin].flags;
    specials[bin] = static_cast<uint8_t>(((flags & kPositiveInfinity) != 0 ? 1 : 0) |
                                         ((flags & kNegativeInfinity) != 0 ? 2 : 0) |
                                         ((flags & kNan) != 0 ? 4 : 0));
  }
}

// run(double or float).
template <class Run>
void with_float(Dtype dtype, const Run& run) {
  if (dtype == Dtype::float64) return run(double{});
  if (dtype == Dtype::float32) return run(float{});
  throw std::invalid_argument("histogram takes float64 and float32");
}

template <class T>
Finder<T> finder_of(const Bins& bins, const void* x) {
  return {static_cast<const T*>(x), static_cast<const T*>(bins.edges), bins.bins, bins.uniform};
}

}  // namespace

void count_on_device(const int64_t* index, int64_t n, int64_t bins, int64_t* counts, int blocks,
                     Stream stream) {
  count_all(Given{index}, n, bins, counts, blocks, stream);
}

void check_on_device(const int64_t* index, int64_t n, int64_t low, int64_t high, int64_t* wrapped,
                     uint64_t* bad, int blocks, Stream stream) {
  NDP_LAUNCH((check_range), grid_for(n, blocks), kBlockThreads, stream, index, n, low, high,
             wrapped, bad);
}

void divide_rows_on_device(Dtype dtype, void* table, const int64_t* counts, int64_t rows,
                           int64_t columns, int blocks, Stream stream) {
  with_element(dtype, "embedding", [&](auto of) {
    using T = decltype(of);
    NDP_LAUNCH((divide_cells<T>), grid_for(rows * columns, blocks), kBlockThreads, stream,
               static_cast<T*>(table), counts, rows * columns, columns);
  });
}

void find_bins_on_device(const Bins& bins, const void* x, int64_t n, int64_t* index, int blocks,
                         Stream stream) {
  with_float(bins.dtype, [&](auto of) {
    using T = decltype(of);
    NDP_LAUNCH((find_all<T>), grid_for(n, blocks), kBlockThreads, stream, finder_of<T>(bins, x), n,
               index);
  });
}

void count_bins_on_device(const Bins& bins, const void* x, int64_t n, int64_t* counts, int blocks,
                          Stream stream) {
  with_float(bins.dtype, [&](auto of) {
    count_all(finder_of<decltype(of)>(bins, x), n, bins.bins, counts, blocks, stream);
  });
}

int64_t bin_sums_workspace(int64_t bins) {
  return bins * static_cast<int64_t>(sizeof(ExactTotal));
}

void bin_sums_on_device(Dtype dtype, const int64_t* index, const void* weights, int64_t n,
                        int64_t bins, void* workspace, int64_t* digits, uint8_t* specials,
                        int blocks, Stream stream) {
  auto* totals = static_cast<ExactTotal*>(workspace);
  clear_on(stream, totals, static_cast<size_t>(bin_sums_workspace(bins)));
  with_float(dtype, [&](auto of) {
    using T = decltype(of);
    NDP_LAUNCH((add_weights<T>), grid_for(n, blocks), kBlockThreads, stream, index,
               static_cast<const T*>(weights), n, bins, totals);
  });
  NDP_LAUNCH((write_digits), grid_for(bins, blocks), kBlockThreads, stream, totals, bins, digits,
             specials);
}

}  // namespace ndp
