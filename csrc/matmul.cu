// `matmul` on the device: plain tiles, no tensor cores. Those add products of several k at a time, in
// an order and with roundings of their own, which no CPU can follow; here every element is the chain
// of fused multiply-adds of docs/ops/matmul.md, whatever the tile.
//
// A thread has 4 x 4 elements, in registers: for each k two reads of 16 bytes from shared memory (3
// cycles a warp, for fp32) against 16 multiply-adds (4 cycles), so that neither waits for the other.
#include "matmul_device.hpp"

#include <algorithm>
#include <stdexcept>

#include "elements.hpp"
#include "exact_products_device.hpp"

namespace ndp {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocksAProcessor = 4;
constexpr int kTileSide = 64;
constexpr int kOwn = 4;  // rows, and columns, of a thread
constexpr int kAcross = kTileSide / kOwn;
static_assert(kAcross * kAcross == kThreads);
// Terms in shared memory at a time. A line of them is a little longer than a tile's side, so that
// neighbours in k are at different banks.
constexpr int kStep = 16;
constexpr int kPitch = kTileSide + kOwn;
static_assert(kMatmulBlock % kStep == 0);
// Partial sums at a time, at the most, where a single product does not need more: they stay in the
// second-level cache (16 or 32 MiB), and are the work of a thousand blocks.
constexpr int64_t kMostSums = int64_t{1} << 22;

constexpr int kBatchDims = 6;

// A Matmul, batch dimensions merged where strides allow it: the last one first.
template <class T>
struct Problem {
  const T* a;
  const T* b;
  T* result;
  int64_t m, n, k;
  int64_t a_line, a_k, b_line, b_k;
  int dims;
  int64_t batch[kBatchDims], a_batch[kBatchDims], b_batch[kBatchDims];

  __device__ void offsets(int64_t at, int64_t& of_a, int64_t& of_b) const {
    of_a = of_b = 0;
    for (int dim = 0; dim < dims; ++dim) {
      of_a += at % batch[dim] * a_batch[dim];
      of_b += at % batch[dim] * b_batch[dim];
      at /= batch[dim];
    }
  }
};

__device__ inline float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline double fused(double a, double b, double c) { return __fma_rn(a, b, c); }

template <class Sum>
struct alignas(16) Quad {
  Sum x[kOwn];
};

// Elements [line, line + kTileSide) of terms [first, first + kStep) into shared memory, as quads of
// neighbouring lines; zeros beyond the end. Neighbours in memory go to neighbouring threads.
template <class T>
__device__ inline void load_tile(const T* from, int64_t line_stride, int64_t k_stride, int64_t line,
                                 int64_t lines, int64_t first, int64_t last,
                                 Quad<typename Element<T>::Partial>* to) {
  using Sum = typename Element<T>::Partial;
  auto* const sums = reinterpret_cast<Sum*>(to);
  const bool along_k = k_stride <= line_stride;
#pragma unroll
  for (int i = 0; i < kTileSide * kStep / kThreads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads;
    const int term = along_k ? at % kStep : at / kTileSide;
    const int row = along_k ? at / kStep : at % kTileSide;
    Sum x = 0;
    if (line + row < lines && first + term < last)
      x = partial_of(from[(line + row) * line_stride + (first + term) * k_stride]);
    sums[term * kPitch + row] = x;
  }
}

// Where a tile's sums over a slice of k go: the only place in which the variants differ.
template <MatmulVariant variant, class T>
__device__ inline void leave(typename Element<T>::Partial sum, int64_t element, int64_t slice,
                             int64_t elements, T* result, typename Element<T>::Partial* partials) {
  if constexpr (variant == MatmulVariant::fixed_split)
    result[element] = narrowed<T>(sum);
  else if constexpr (variant == MatmulVariant::splitk_ordered)
    partials[slice * elements + element] = sum;
  else
    atomicAdd(&partials[element], sum);
}

// Batches first_batch ... first_batch + batches - 1, in slices of `length` terms.
template <class T, MatmulVariant variant>
__global__ void __launch_bounds__(kThreads, 2)
    matmul_tiles(const __grid_constant__ Problem<T> of, int64_t first_batch, int64_t batches,
                 int64_t length, typename Element<T>::Partial* partials) {
  using Sum = typename Element<T>::Partial;
  NDP_SHARED(Quad<Sum>, a, kStep * kPitch / kOwn);
  NDP_SHARED(Quad<Sum>, b, kStep * kPitch / kOwn);
  const int row_in = static_cast<int>(threadIdx.x) / kAcross;
  const int column_in = static_cast<int>(threadIdx.x) % kAcross;
  const int64_t slices = ceil_div(of.k, length);
  const int64_t down = ceil_div(of.m, kTileSide), across = ceil_div(of.n, kTileSide);
  for (int64_t work = blockIdx.x; work < batches * slices * down * across; work += gridDim.x) {
    const int64_t column = work % across * kTileSide;
    const int64_t row = work / across % down * kTileSide;
    const int64_t slice = work / (across * down) % slices;
    const int64_t batch = work / (across * down * slices);
    int64_t of_a, of_b;
    of.offsets(first_batch + batch, of_a, of_b);
    const int64_t start = slice * length;
    const int64_t end = start + length < of.k ? start + length : of.k;
    Sum total[kOwn][kOwn], chain[kOwn][kOwn];
    for (auto& line : total)
      for (Sum& sum : line) sum = -Sum{0};  // -0.0 plus x is x, for every x
    for (int64_t first = start; first < end; first += kMatmulBlock) {
      const int64_t last = first + kMatmulBlock < end ? first + kMatmulBlock : end;
#pragma unroll
      for (auto& line : chain)
#pragma unroll
        for (Sum& sum : line) sum = -Sum{0};
      for (int64_t k = first; k < last; k += kStep) {
        __syncthreads();  // of the step before, all has been read
        load_tile(of.a + of_a, of.a_line, of.a_k, row, of.m, k, last, a);
        load_tile(of.b + of_b, of.b_line, of.b_k, column, of.n, k, last, b);
        __syncthreads();
        const auto add = [&](int term) {
          const Quad<Sum> x = a[term * kPitch / kOwn + row_in];
          const Quad<Sum> y = b[term * kPitch / kOwn + column_in];
#pragma unroll
          for (int i = 0; i < kOwn; ++i)
#pragma unroll
            for (int j = 0; j < kOwn; ++j) chain[i][j] = fused(x.x[i], y.x[j], chain[i][j]);
        };
        // Terms that are not there have no product: 0 * 0 would make +0 of a -0.
        if (last - k >= kStep) {
#pragma unroll 4
          for (int term = 0; term < kStep; ++term) add(term);
        } else {
          for (int term = 0; term < static_cast<int>(last - k); ++term) add(term);
        }
      }
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
#pragma unroll
        for (int j = 0; j < kOwn; ++j) total[i][j] += chain[i][j];
    }
    T* const result = of.result + first_batch * of.m * of.n;
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
#pragma unroll
      for (int j = 0; j < kOwn; ++j) {
        const int64_t at = row + row_in * kOwn + i, to = column + column_in * kOwn + j;
        if (at < of.m && to < of.n)
          leave<variant, T>(total[i][j], (batch * of.m + at) * of.n + to, slice,
                            batches * of.m * of.n, result, partials);
      }
  }
}

// Sums that atomics add to. They begin with -0, which changes nothing.
template <class Sum>
__global__ void matmul_start(int64_t elements, Sum* sums) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < elements;
       i += int64_t{gridDim.x} * blockDim.x)
    sums[i] = -Sum{0};
}

// partials[slice, element], added in order, and rounded.
template <class T>
__global__ void matmul_finish(const typename Element<T>::Partial* partials, int64_t slices,
                              int64_t elements, T* result) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < elements;
       i += int64_t{gridDim.x} * blockDim.x) {
    typename Element<T>::Partial total = partials[i];
    for (int64_t slice = 1; slice < slices; ++slice) total += partials[slice * elements + i];
    result[i] = narrowed<T>(total);
  }
}

// A warp for each element.
template <class T>
__global__ void __launch_bounds__(kThreads)
    matmul_exact(const __grid_constant__ Problem<T> of, int64_t batches) {
  NDP_SHARED(ProductTotal<T>, own, kWarps);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t elements = batches * of.m * of.n;
  // The same for all warps of a block: they clear their totals together.
  for (int64_t first = int64_t{blockIdx.x} * kWarps; first < elements;
       first += int64_t{gridDim.x} * kWarps) {
    __syncthreads();
    clear_products(own, kWarps);
    const int64_t element = first + warp;
    if (element >= elements) continue;
    int64_t of_a, of_b;
    of.offsets(element / (of.m * of.n), of_a, of_b);
    const T* a = of.a + of_a + element / of.n % of.m * of.a_line;
    const T* b = of.b + of_b + element % of.n * of.b_line;
    bool other = false;
    for (int64_t start = 0; start < of.k; start += kTile) {
      T x[kTileLane], y[kTileLane];
#pragma unroll
      for (int i = 0; i < kTileLane; ++i) {
        const int64_t k = start + i * kWarp + lane;
        x[i] = y[i] = element_of<T>(0);
        if (k < of.k) {
          x[i] = a[k * of.a_k];
          y[i] = b[k * of.b_k];
          other |= !is_negative_zero(x[i], y[i]);
        }
      }
      add_products(x, y, own[warp]);
    }
    other = __any_sync(kAllLanes, other);
    __syncwarp();
    if (lane != 0) continue;
    WideAcc acc;
    to_wide(own[warp], acc);
    of.result[element] = element_of<T>(round_to(acc, format_of_element<T>(), !other));
  }
}

// ---- on the host

int64_t batches_of(const Matmul& job) {
  int64_t batches = 1;
  for (const int64_t count : job.batch) batches *= count;
  return batches;
}

// Terms of a slice of k.
int64_t length_of(const Matmul& job, MatmulVariant variant) {
  if (variant == MatmulVariant::fixed_split) return job.k;
  return kMatmulBlock * ceil_div(ceil_div(job.k, kMatmulBlock), kMatmulSlices);
}

// Partial sums of one product; products whose partial sums are kept at a time.
int64_t partials_of(const Matmul& job, MatmulVariant variant) {
  const bool apart = variant == MatmulVariant::splitk_ordered;
  return job.m * job.n * (apart ? ceil_div(job.k, length_of(job, variant)) : 1);
}
int64_t group_of(const Matmul& job, MatmulVariant variant) {
  if (variant == MatmulVariant::fixed_split) return batches_of(job);
  return std::clamp<int64_t>(kMostSums / partials_of(job, variant), 1, batches_of(job));
}

template <class T>
Problem<T> problem_of(const Matmul& job) {
  Problem<T> of{static_cast<const T*>(job.a), static_cast<const T*>(job.b),
                static_cast<T*>(job.result), job.m, job.n, job.k, job.a_row_stride, job.a_k_stride,
                job.b_column_stride, job.b_k_stride, 0, {}, {}, {}};
  for (size_t dim = job.batch.size(); dim-- > 0;) {
    const int64_t count = job.batch[dim];
    const int64_t a = job.a_batch_strides[dim], b = job.b_batch_strides[dim];
    if (count == 1) continue;
    const int before = of.dims - 1;
    if (of.dims > 0 && a == of.a_batch[before] * of.batch[before] &&
        b == of.b_batch[before] * of.batch[before]) {
      of.batch[before] *= count;
      continue;
    }
    if (of.dims == kBatchDims)
      throw std::invalid_argument(
          "matmul on a GPU takes at most 6 batch dimensions that are not one in memory; pass "
          "contiguous tensors");
    of.batch[of.dims] = count;
    of.a_batch[of.dims] = a;
    of.b_batch[of.dims++] = b;
  }
  return of;
}

template <class T, MatmulVariant variant>
void by_tiles(const Matmul& job, void* workspace, int64_t most, Stream stream) {
  using Sum = typename Element<T>::Partial;
  constexpr bool whole = variant == MatmulVariant::fixed_split;
  const Problem<T> of = problem_of<T>(job);
  const int64_t length = length_of(job, variant), slices = ceil_div(job.k, length);
  const int64_t tiles = ceil_div(job.m, kTileSide) * ceil_div(job.n, kTileSide);
  const int64_t group = group_of(job, variant), batches = batches_of(job);
  const auto grid = [&](int64_t works) {
    return static_cast<unsigned>(std::clamp<int64_t>(works, 1, most));
  };
  auto* partials = static_cast<Sum*>(workspace);
  for (int64_t first = 0; first < batches; first += group) {
    const int64_t here = std::min(group, batches - first), elements = here * job.m * job.n;
    if constexpr (variant == MatmulVariant::splitk_atomic)
      NDP_LAUNCH((matmul_start<Sum>), grid(ceil_div(elements, kThreads)), kThreads, stream, elements,
                 partials);
    NDP_LAUNCH((matmul_tiles<T, variant>), grid(here * slices * tiles), kThreads, stream, of, first,
               here, length, partials);
    if constexpr (!whole) {
      const int64_t apart = variant == MatmulVariant::splitk_ordered ? slices : 1;
      T* to = of.result + first * job.m * job.n;
      NDP_LAUNCH((matmul_finish<T>), grid(ceil_div(elements, kThreads)), kThreads, stream, partials,
                 apart, elements, to);
    }
  }
}

template <class T>
void matmul_of(const Matmul& job, MatmulVariant variant, void* workspace, int blocks,
               Stream stream) {
  const int64_t elements = batches_of(job) * job.m * job.n;
  if (elements == 0) return;
  if (job.k == 0) return clear_on(stream, job.result, static_cast<size_t>(elements) * sizeof(T));
  const int64_t most = blocks > 0 ? blocks : blocks_at_once(kBlocksAProcessor);
  switch (variant) {
    case MatmulVariant::splitk_atomic:
      return by_tiles<T, MatmulVariant::splitk_atomic>(job, workspace, most, stream);
    case MatmulVariant::splitk_ordered:
      return by_tiles<T, MatmulVariant::splitk_ordered>(job, workspace, most, stream);
    case MatmulVariant::fixed_split:
      return by_tiles<T, MatmulVariant::fixed_split>(job, workspace, most, stream);
    case MatmulVariant::exact: {
      const int64_t grid = std::clamp<int64_t>(ceil_div(elements, kWarps), 1, most);
      NDP_LAUNCH((matmul_exact<T>), static_cast<unsigned>(grid), kThreads, stream,
                 problem_of<T>(job), batches_of(job));
      return;
    }
  }
}

}  // namespace

int64_t matmul_workspace(const Matmul& job, MatmulVariant variant) {
  return by_dtype(job.dtype, "matmul", [&](auto of) -> int64_t {
    const bool none = variant == MatmulVariant::fixed_split || variant == MatmulVariant::exact;
    if (none || batches_of(job) * job.m * job.n * job.k == 0) return 0;
    using Sum = typename Element<decltype(of)>::Partial;
    return group_of(job, variant) * partials_of(job, variant) * static_cast<int64_t>(sizeof(Sum));
  });
}

void matmul(const Matmul& job, MatmulVariant variant, void* workspace, int blocks, Stream stream) {
  by_dtype(job.dtype, "matmul", [&](auto of) {
    matmul_of<decltype(of)>(job, variant, workspace, blocks, stream);
  });
}

}  // namespace ndp
