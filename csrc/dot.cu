// `dot` and `norm` on the device: one result, so that all blocks work for it. Which block has which
// products is no part of it.
#include "dot_device.hpp"

#include <algorithm>

#include "binned_device.hpp"
#include "binned_products.hpp"
#include "elements.hpp"
#include "exact_products_device.hpp"
#include "fixed_order_device.hpp"

namespace ndp {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocksAProcessor = 8;

// ---- fixed_order

// Products of elements side by side in memory, as add_chunk takes them.
template <class T, bool aligned>
struct Products {
  static constexpr int kAtOnce = 4;
  struct Read {
    T x[kVector<T>], y[kVector<T>];
  };
  const T* a;
  const T* b;
  __device__ Read read(int at) const {
    Read read;
    read_vector<T, aligned>(a + at, read.x);
    read_vector<T, aligned>(b + at, read.y);
    return read;
  }
  __device__ void terms(const Read& read, typename Element<T>::Partial (&terms)[kVector<T>]) const {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) terms[i] = partial_of(read.x[i]) * partial_of(read.y[i]);
  }
  __device__ typename Element<T>::Partial one(int at) const {
    return partial_of(a[at]) * partial_of(b[at]);
  }
};

// The sums of all chunks.
template <class T, bool aligned>
__global__ void __launch_bounds__(kThreads)
    dot_fixed_order(const T* a, const T* b, int64_t n, typename Element<T>::Partial* partials) {
  constexpr int kTeams = kThreads / kTeam<T>;
  const int member = static_cast<int>(threadIdx.x) % kTeam<T>;
  const int64_t chunks = ceil_div(n, kSumChunk);
  // Whole warps stay together: they trade lanes at the end.
  for (int64_t first = int64_t{blockIdx.x} * kTeams; first < chunks;
       first += int64_t{gridDim.x} * kTeams) {
    const int64_t chunk = first + static_cast<int>(threadIdx.x) / kTeam<T>;
    int count = 0;
    Products<T, aligned> products{a, b};
    if (chunk < chunks) {
      const int64_t start = chunk * kSumChunk;
      count = static_cast<int>(n - start < kSumChunk ? n - start : kSumChunk);
      products = {a + start, b + start};
    }
    const typename Element<T>::Partial total = add_chunk<T>(products, count, member);
    if (member == 0 && chunk < chunks) partials[chunk] = total;
  }
}

__device__ inline float root_of(float x) { return __fsqrt_rn(x); }
__device__ inline double root_of(double x) { return __dsqrt_rn(x); }

// Up to kFold neighbours become one: the result where `last`, else in `folded`.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dot_fold(const typename Element<T>::Partial* partials, int64_t count,
             typename Element<T>::Partial* folded, bool last, bool root, T* result) {
  using Partial = typename Element<T>::Partial;
  NDP_SHARED(Partial, values, kFold);
  for (int64_t group = blockIdx.x; group * kFold < count; group += gridDim.x) {
    const int64_t left = count - group * kFold;
    fold_neighbours(partials + group * kFold, static_cast<int>(left < kFold ? left : kFold), values);
    if (threadIdx.x != 0) continue;
    if (last)
      *result = element_of<T>(
          round_double(root ? root_of(values[0]) : values[0], format_of_element<T>()));
    else
      folded[group] = values[0];
  }
}

// ---- exact and binned: warps take tiles. Rounding is a kernel of its own, for the sake of the
// registers of those that read.

// A lane's products of a tile, and whether any of them is not -0.
template <class T>
__device__ inline bool read_tile(const T* a, const T* b, int64_t n, int64_t start,
                                 T (&x)[kTileLane], T (&y)[kTileLane]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  bool other = false;
#pragma unroll
  for (int i = 0; i < kTileLane; ++i) {
    const int64_t at = start + i * kWarp + lane;
    x[i] = y[i] = element_of<T>(0);
    if (at < n) {
      x[i] = a[at];
      y[i] = b[at];
      other |= !is_negative_zero(x[i], y[i]);
    }
  }
  return other;
}

// The bits of the sum, or of its root. flags: kNotNegativeZero of all products.
template <class T>
__device__ inline T rounded(WideAcc& acc, unsigned flags, bool root) {
  const Format format = format_of_element<T>();
  return element_of<T>(root ? root_to(acc, format)
                            : round_to(acc, format, (flags & kNotNegativeZero) == 0));
}

// Tiles that a warp adds before the block's digits go to the total, at the most: every product is
// one or two additions to a digit, of which there may be 2^30.
constexpr int64_t kMostTiles = int64_t{1} << 20;

template <class T>
__global__ void __launch_bounds__(kThreads)
    dot_exact(const T* a, const T* b, int64_t n, ProductTotal<T>* total) {
  NDP_SHARED(ProductTotal<T>, own, kWarps);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t apart = int64_t{gridDim.x} * kWarps * kTile;
  bool other = false;
  // The same for all warps of a block.
  for (int64_t first = int64_t{blockIdx.x} * kWarps * kTile; first < n;
       first += apart * kMostTiles) {
    clear_products(own, kWarps);
    int64_t start = first + warp * kTile;
    for (int64_t tile = 0; tile < kMostTiles && start < n; ++tile, start += apart) {
      T x[kTileLane], y[kTileLane];
      other |= read_tile(a, b, n, start, x, y);
      add_products(x, y, own[warp]);
    }
    add_to_total(own, kWarps, *total);
    __syncthreads();
  }
  if (other) atomicOr(&total->near.flags, kNotNegativeZero);
}

template <class T>
__global__ void dot_finish_exact(const ProductTotal<T>* total, bool root, T* result) {
  WideAcc acc;
  to_wide(*total, acc);
  *result = rounded<T>(acc, total->near.flags, root);
}

// What a block found.
struct BinnedPart {
  Binned sum;
  unsigned flags;
};

template <class T>
constexpr int kLowestProductTop =
    sizeof(T) == sizeof(double) ? kLowestProductTop64 : kLowestProductTop32;

template <class T>
__device__ inline void start_binned(Binned& sum) {
  clear(sum);
  sum.top = kLowestProductTop<T>;
}

template <class T>
__device__ inline void bin_products(const T (&x)[kTileLane], const T (&y)[kTileLane], Binned& sum) {
  constexpr int kBins = Element<T>::bins;
  double products[kTileLane];
#pragma unroll
  for (int i = 0; i < kTileLane; ++i) products[i] = value_of(x[i]) * value_of(y[i]);
  if (bin_tile<kBins>(products, sum, kLowestQuickTop, kHighestQuickTop)) return;
  Binned lanes;
  start_binned<T>(lanes);
  for (int i = 0; i < kTileLane; ++i) bin_product(value_of(x[i]), value_of(y[i]), kBins, lanes);
  for (int lane = 0; lane < kWarp; ++lane) {
    if (static_cast<int>(threadIdx.x) % kWarp == lane) merge(sum, lanes, kBins);
    __syncwarp();
  }
}

// All threads of the block: parts[0] becomes the sum of `count` of them, a power of two.
template <class T>
__device__ inline void merge_parts(BinnedPart* parts, int count) {
  for (int half = count / 2; half > 0; half /= 2) {
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x);
    if (i < half) {
      merge(parts[i].sum, parts[i + half].sum, Element<T>::bins);
      parts[i].flags |= parts[i + half].flags;
    }
  }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    dot_binned(const T* a, const T* b, int64_t n, BinnedPart* parts) {
  NDP_SHARED(BinnedPart, own, kWarps);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (threadIdx.x < kWarps) {
    start_binned<T>(own[threadIdx.x].sum);
    own[threadIdx.x].flags = 0;
  }
  __syncthreads();
  bool other = false;
  for (int64_t start = (int64_t{blockIdx.x} * kWarps + warp) * kTile; start < n;
       start += int64_t{gridDim.x} * kWarps * kTile) {
    T x[kTileLane], y[kTileLane];
    other |= read_tile(a, b, n, start, x, y);
    bin_products(x, y, own[warp].sum);
  }
  if (other) atomicOr(&own[warp].flags, kNotNegativeZero);
  merge_parts<T>(own, kWarps);
  if (threadIdx.x == 0) parts[blockIdx.x] = own[0];
}

// One block.
template <class T>
__global__ void __launch_bounds__(kThreads)
    dot_finish_binned(const BinnedPart* parts, unsigned count, bool root, T* result) {
  NDP_SHARED(BinnedPart, own, kThreads);
  BinnedPart& part = own[threadIdx.x];
  start_binned<T>(part.sum);
  part.flags = 0;
  for (unsigned i = threadIdx.x; i < count; i += kThreads) {
    merge(part.sum, parts[i].sum, Element<T>::bins);
    part.flags |= parts[i].flags;
  }
  merge_parts<T>(own, kThreads);
  if (threadIdx.x != 0) return;
  WideAcc acc;
  to_wide(own[0].sum, Element<T>::bins, acc);
  *result = rounded<T>(acc, own[0].flags, root);
}

// ---- on the host

int64_t most_blocks(const DeviceDot& job) {
  return job.blocks > 0 ? job.blocks : blocks_at_once(kBlocksAProcessor);
}

unsigned grid_of(const DeviceDot& job, int64_t works) {
  return static_cast<unsigned>(std::clamp<int64_t>(works, 1, most_blocks(job)));
}

unsigned grid_of_tiles(const DeviceDot& job) {
  return grid_of(job, ceil_div(job.n, kWarps * kTile));
}

template <class T>
int64_t workspace_of(const DeviceDot& job) {
  using Partial = typename Element<T>::Partial;
  switch (job.variant) {
    case DotVariant::fixed_order: {
      const int64_t chunks = ceil_div(job.n, kSumChunk);
      return static_cast<int64_t>(sizeof(Partial)) * (chunks + ceil_div(chunks, kFold));
    }
    case DotVariant::binned:
      return static_cast<int64_t>(sizeof(BinnedPart)) * grid_of_tiles(job);
    default:
      return sizeof(ProductTotal<T>);
  }
}

template <class T>
void fixed_order(const DeviceDot& job, void* workspace, Stream stream) {
  const T* a = static_cast<const T*>(job.a);
  const T* b = static_cast<const T*>(job.b);
  int64_t count = ceil_div(job.n, kSumChunk);
  auto* partials = static_cast<typename Element<T>::Partial*>(workspace);
  auto* folded = partials + count;
  const unsigned grid = grid_of(job, ceil_div(count, kThreads / kTeam<T>));
  const uintptr_t address = reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b);
  if (address % 16 == 0)
    NDP_LAUNCH((dot_fixed_order<T, true>), grid, kThreads, stream, a, b, job.n, partials);
  else
    NDP_LAUNCH((dot_fixed_order<T, false>), grid, kThreads, stream, a, b, job.n, partials);
  for (;;) {
    const int64_t groups = ceil_div(count, kFold);
    NDP_LAUNCH((dot_fold<T>), grid_of(job, groups), kThreads, stream, partials, count, folded,
               groups == 1, job.root, static_cast<T*>(job.result));
    if (groups == 1) return;
    std::swap(partials, folded);
    count = groups;
  }
}

template <class T>
void dot_of(const DeviceDot& job, void* workspace, Stream stream) {
  const T* a = static_cast<const T*>(job.a);
  const T* b = static_cast<const T*>(job.b);
  T* result = static_cast<T*>(job.result);
  if (job.n == 0) return clear_on(stream, result, sizeof(T));
  switch (job.variant) {
    case DotVariant::fixed_order:
      return fixed_order<T>(job, workspace, stream);
    case DotVariant::binned: {
      auto* parts = static_cast<BinnedPart*>(workspace);
      const unsigned grid = grid_of_tiles(job);
      NDP_LAUNCH((dot_binned<T>), grid, kThreads, stream, a, b, job.n, parts);
      NDP_LAUNCH((dot_finish_binned<T>), 1, kThreads, stream, parts, grid, job.root, result);
      return;
    }
    default: {
      auto* total = static_cast<ProductTotal<T>*>(workspace);
      clear_on(stream, total, sizeof *total);
      NDP_LAUNCH((dot_exact<T>), grid_of_tiles(job), kThreads, stream, a, b, job.n, total);
      NDP_LAUNCH((dot_finish_exact<T>), 1, 1, stream, total, job.root, result);
      return;
    }
  }
}

}  // namespace

int64_t dot_workspace(const DeviceDot& job) {
  return by_dtype(job.dtype, "dot (or norm)",
                  [&](auto of) { return workspace_of<decltype(of)>(job); });
}

void dot(const DeviceDot& job, void* workspace, Stream stream) {
  by_dtype(job.dtype, "dot (or norm)",
           [&](auto of) { dot_of<decltype(of)>(job, workspace, stream); });
}

}  // namespace ndp
