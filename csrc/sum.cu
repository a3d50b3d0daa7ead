// `sum` and `mean` on the device. A sum of many elements is the work of several blocks; which block
// has which elements is no part of any result but those of `atomic` and `two_pass`.
#include <algorithm>
#include <stdexcept>

#include "binned_device.hpp"
#include "elements.hpp"
#include "exact_device.hpp"
#include "fixed_order_device.hpp"
#include "sum_device.hpp"

namespace ndp {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocksAProcessor = 8;
// Columns side by side, so that a row of them is read in whole lines, and rows at a time.
constexpr int kColumns = 32;
constexpr int kRows = kThreads / kColumns;

// Elements of one sum: x[start + i * apart] for i < n.
struct Place {
  int64_t start, apart;
};

struct Shape {
  int64_t outer, n, inner;
  __host__ __device__ int64_t results() const { return outer * inner; }
  __device__ Place place(int64_t result) const {
    return {result / inner * n * inner + result % inner, inner};
  }
};

// The bits of a floating-point sum: divided, in fp64, for a mean, and rounded once.
template <class T>
__device__ inline T finished(double sum, int64_t n, bool mean) {
  const double result = mean ? sum / static_cast<double>(n) : sum;
  return element_of<T>(round_double(result, format_of_element<T>()));
}

// ---- fixed_order: docs/ops.md. Chunks of 4096 elements by 64 lanes, then rounds of neighbours.

// Elements side by side in memory, as add_chunk takes them.
template <class T, bool aligned>
struct Elements {
  static constexpr int kAtOnce = 8;
  struct Read {
    T x[kVector<T>];
  };
  const T* from;
  __device__ Read read(int at) const {
    Read read;
    read_vector<T, aligned>(from + at, read.x);
    return read;
  }
  __device__ void terms(const Read& read, typename Element<T>::Partial (&terms)[kVector<T>]) const {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) terms[i] = partial_of(read.x[i]);
  }
  __device__ typename Element<T>::Partial one(int at) const { return partial_of(from[at]); }
};

// The sums of all chunks of rows of n contiguous elements: partials[row, chunk].
template <class T, bool aligned>
__global__ void __launch_bounds__(kThreads)
    sum_fixed_order_rows(const T* x, int64_t rows, int64_t n, typename Element<T>::Partial* partials) {
  using Partial = typename Element<T>::Partial;
  constexpr int kTeams = kThreads / kTeam<T>;
  const int member = static_cast<int>(threadIdx.x) % kTeam<T>;
  const int64_t chunks_a_row = ceil_div(n, kSumChunk);
  const int64_t chunks = rows * chunks_a_row;
  // Whole warps stay together: they trade lanes at the end.
  for (int64_t first = int64_t{blockIdx.x} * kTeams; first < chunks;
       first += int64_t{gridDim.x} * kTeams) {
    const int64_t chunk = first + static_cast<int>(threadIdx.x) / kTeam<T>;
    int count = 0;
    Elements<T, aligned> elements{x};
    if (chunk < chunks) {
      const int64_t start = chunk % chunks_a_row * kSumChunk;
      count = static_cast<int>(n - start < kSumChunk ? n - start : kSumChunk);
      elements.from += chunk / chunks_a_row * n + start;
    }
    const Partial total = add_chunk<T>(elements, count, member);
    if (member == 0 && chunk < chunks) partials[chunk] = total;
  }
}

// The same down columns: a chunk of kColumns neighbouring columns is the work of a block, a thread
// has some of the lanes of one column. partials[outer, column, chunk].
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_fixed_order_columns(const T* x, Shape shape, typename Element<T>::Partial* partials) {
  using Partial = typename Element<T>::Partial;
  constexpr int kLanes = kSumLanes / kRows;
  NDP_SHARED(Partial, folded, kRows * kColumns);
  const int column_in = static_cast<int>(threadIdx.x) % kColumns;
  const int team = static_cast<int>(threadIdx.x) / kColumns;
  const int64_t chunks = ceil_div(shape.n, kSumChunk);
  const int64_t strips = ceil_div(shape.inner, kColumns);
  const int64_t works = shape.outer * strips * chunks;
  for (int64_t work = blockIdx.x; work < works; work += gridDim.x) {
    const int64_t chunk = work % chunks;
    const int64_t column = work / chunks % strips * kColumns + column_in;
    const int64_t outer = work / chunks / strips;
    const bool inside = column < shape.inner;
    const int64_t start = chunk * kSumChunk;
    const int count = static_cast<int>(shape.n - start < kSumChunk ? shape.n - start : kSumChunk);
    const T* from = x + (outer * shape.n + start) * shape.inner + (inside ? column : 0);
    Partial lane[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) lane[i] = -Partial{0};
    for (int row = 0; row < count; row += kSumLanes) {
#pragma unroll
      for (int i = 0; i < kLanes; ++i) {
        const int at = row + i * kRows + team;  // lane i * kRows + team
        if (at < count) lane[i] += partial_of(from[at * shape.inner]);
      }
    }
    // Halves: the first three folds are among a thread's own lanes.
#pragma unroll
    for (int half = kLanes / 2; half > 0; half /= 2)
#pragma unroll
      for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
    __syncthreads();  // of the strip before, all has been read
    folded[team * kColumns + column_in] = lane[0];
    for (int half = kRows / 2; half > 0; half /= 2) {
      __syncthreads();
      if (team < half)
        folded[team * kColumns + column_in] += folded[(team + half) * kColumns + column_in];
    }
    if (team == 0 && inside)
      partials[(outer * shape.inner + column) * chunks + chunk] = folded[column_in];
  }
}

// Up to kFold neighbours of a row of `count` partials become one. results: the final ones where `last`, else `folded` takes the partials of the next launch.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_fold(const typename Element<T>::Partial* partials, int64_t rows, int64_t count,
             typename Element<T>::Partial* folded, bool last, int64_t n, bool mean, T* results) {
  using Partial = typename Element<T>::Partial;
  NDP_SHARED(Partial, values, kFold);
  const int64_t groups = ceil_div(count, kFold);
  for (int64_t work = blockIdx.x; work < rows * groups; work += gridDim.x) {
    const int64_t start = work % groups * kFold;
    const int here = static_cast<int>(count - start < kFold ? count - start : kFold);
    fold_neighbours(partials + work / groups * count + start, here, values);
    if (threadIdx.x == 0) {
      if (last)
        results[work] = finished<T>(values[0], n, mean);
      else
        folded[work] = values[0];
    }
  }
}

// ---- atomic and two_pass: a range of every sum for each block, and these differ in one place.

// The sum of one block's range, in thread 0.
template <class T>
__device__ inline typename Element<T>::Partial range_sum(const T* x, const Shape& shape,
                                                         int64_t result, int64_t first,
                                                         int64_t last,
                                                         typename Element<T>::Partial* shared) {
  using Partial = typename Element<T>::Partial;
  constexpr int kApart = 4;  // sums on their way at a time
  const Place place = shape.place(result);
  Partial sums[kApart] = {-Partial{0}, -Partial{0}, -Partial{0}, -Partial{0}};
  int64_t i = first + threadIdx.x;
  for (; i + (kApart - 1) * kThreads < last; i += kApart * kThreads)
#pragma unroll
    for (int k = 0; k < kApart; ++k)
      sums[k] += partial_of(x[place.start + (i + k * kThreads) * place.apart]);
  for (; i < last; i += kThreads) sums[0] += partial_of(x[place.start + i * place.apart]);
  Partial sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2) sum += __shfl_xor_sync(kAllLanes, sum, by);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = sum;
  __syncthreads();
  Partial total = shared[0];
  for (int warp = 1; warp < kWarps; ++warp) total += shared[warp];
  return total;
}

// to[result] or, for two_pass, to[result, part].
template <class T, SumVariant variant>
__global__ void __launch_bounds__(kThreads)
    sum_parts(const T* x, Shape shape, int64_t parts, typename Element<T>::Partial* to) {
  using Partial = typename Element<T>::Partial;
  NDP_SHARED(Partial, shared, kWarps);
  for (int64_t work = blockIdx.x; work < shape.results() * parts; work += gridDim.x) {
    const int64_t result = work / parts, part = work % parts;
    const Partial sum =
        range_sum<T>(x, shape, result, shape.n / parts * part + shape.n % parts * part / parts,
                     shape.n / parts * (part + 1) + shape.n % parts * (part + 1) / parts, shared);
    if (threadIdx.x == 0) {
      if constexpr (variant == SumVariant::atomic)
        atomicAdd(&to[result], sum);
      else
        to[work] = sum;
    }
  }
}

// The sums that `atomic` left, as results. An atomic starts from +0, which hides that all was -0.
template <class T>
__global__ void sum_finish_atomic(const typename Element<T>::Partial* sums, int64_t results_count,
                                  int64_t n, bool mean, T* results) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < results_count;
       i += int64_t{gridDim.x} * blockDim.x)
    results[i] = finished<T>(sums[i], n, mean);
}

template <class Partial>
__global__ void sum_start_atomic(Partial* sums, int64_t count) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x)
    sums[i] = -Partial{0};
}

// ---- exact

// Elements of one block's visit to a sum: every warp takes whole tiles of it.
constexpr int64_t kVisit = kTile * kWarps * 8;

template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_exact(const T* x, Shape shape, ExactTotal* totals) {
  NDP_SHARED(ExactTotal, own, kWarps);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t visits = ceil_div(shape.n, kVisit);
  for (int64_t work = blockIdx.x; work < shape.results() * visits; work += gridDim.x) {
    const int64_t result = work / visits;
    const Place place = shape.place(result);
    const int64_t end = work % visits * kVisit + kVisit < shape.n ? work % visits * kVisit + kVisit
                                                                  : shape.n;
    clear_shared(own, kWarps);
    bool other = false;
    for (int64_t start = work % visits * kVisit + warp * kTile; start < end;
         start += kWarps * kTile) {
      double tile[kTileLane];
#pragma unroll
      for (int i = 0; i < kTileLane; ++i) {
        const int64_t at = start + i * kWarp + lane;
        tile[i] = 0;
        if (at < end) {
          const T element = x[place.start + at * place.apart];
          other |= bits_of(element) != format_of_element<T>().sign;
          tile[i] = value_of(element);
        }
      }
      add_tile(tile, own[warp]);
    }
    if (other) atomicOr(&own[warp].flags, kNotNegativeZero);
    add_to_total(own, kWarps, totals[result]);
    __syncthreads();
  }
}

// Down columns: a thread adds one column of a visit.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_exact_columns(const T* x, Shape shape, int64_t rows, ExactTotal* totals) {
  const int64_t visits = ceil_div(shape.n, rows);
  for (int64_t work = int64_t{blockIdx.x} * kThreads + threadIdx.x;
       work < shape.outer * visits * shape.inner; work += int64_t{gridDim.x} * kThreads) {
    const int64_t column = work % shape.inner;
    const int64_t visit = work / shape.inner % visits;
    const int64_t outer = work / shape.inner / visits;
    const int64_t end = (visit + 1) * rows < shape.n ? (visit + 1) * rows : shape.n;
    ExactTotal& total = totals[outer * shape.inner + column];
    bool other = false;
    PairSum sum{0, 0};
    for (int64_t row = visit * rows; row < end; ++row) {
      const T element = x[(outer * shape.n + row) * shape.inner + column];
      other |= bits_of(element) != format_of_element<T>().sign;
      sum.add(value_of(element), total);
    }
    sum.done(total);
    if (other) atomicOr(&total.flags, kNotNegativeZero);
  }
}

template <class T>
__global__ void sum_finish_exact(const ExactTotal* totals, int64_t count, int64_t n, bool mean,
                                 T* results) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x)
    results[i] = element_of<T>(round_total(totals[i], n, mean, format_of_element<T>()));
}

// ---- binned

// What a block found in one visit.
struct BinnedPart {
  Binned sum;
  unsigned flags;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_binned(const T* x, Shape shape, BinnedPart* parts) {
  constexpr int kBins = Element<T>::bins;
  NDP_SHARED(BinnedPart, own, kWarps);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t visits = ceil_div(shape.n, kVisit);
  for (int64_t work = blockIdx.x; work < shape.results() * visits; work += gridDim.x) {
    const Place place = shape.place(work / visits);
    const int64_t end = work % visits * kVisit + kVisit < shape.n ? work % visits * kVisit + kVisit
                                                                  : shape.n;
    if (threadIdx.x < kWarps) {
      clear(own[threadIdx.x].sum);
      own[threadIdx.x].flags = 0;
    }
    __syncthreads();
    bool other = false;
    for (int64_t start = work % visits * kVisit + warp * kTile; start < end;
         start += kWarps * kTile) {
      double tile[kTileLane];
#pragma unroll
      for (int i = 0; i < kTileLane; ++i) {
        const int64_t at = start + i * kWarp + lane;
        tile[i] = 0;
        if (at < end) {
          const T element = x[place.start + at * place.apart];
          other |= bits_of(element) != format_of_element<T>().sign;
          tile[i] = value_of(element);
        }
      }
      // A block of the CPU that holds an infinity or a NaN adds nothing else; nor need this one.
      if (!bin_tile<kBins>(tile, own[warp].sum, kLowestTop, kHighestTop))
        atomicOr(&own[warp].flags, specials_of(tile));
    }
    if (other) atomicOr(&own[warp].flags, kNotNegativeZero);
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 1; i < kWarps; ++i) {
        merge(own[0].sum, own[i].sum, kBins);
        own[0].flags |= own[i].flags;
      }
      parts[work] = own[0];
    }
    __syncthreads();
  }
}

template <class T>
__global__ void sum_finish_binned(const BinnedPart* parts, int64_t count, int64_t n, bool mean,
                                  T* results) {
  constexpr int kBins = Element<T>::bins;
  const int64_t visits = ceil_div(n, kVisit);
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    Binned sum;
    clear(sum);
    unsigned flags = 0;
    for (int64_t visit = 0; visit < visits; ++visit) {
      merge(sum, parts[i * visits + visit].sum, kBins);
      flags |= parts[i * visits + visit].flags;
    }
    Superacc acc;
    to_superacc(sum, kBins, acc);
    acc.specials = {(flags & kNan) != 0, (flags & kPositiveInfinity) != 0,
                    (flags & kNegativeInfinity) != 0};
    const bool finite = (flags & (kNan | kPositiveInfinity | kNegativeInfinity)) == 0;
    const bool negative_zero = (flags & kNotNegativeZero) == 0 && n > 0;
    const Format format = format_of_element<T>();
    results[i] = element_of<T>(mean && finite ? round_quotient(acc, n, format, negative_zero)
                                              : round_to(acc, format, negative_zero));
  }
}

// ---- on the host

struct Plan {
  Shape shape;
  int most_blocks;
  int64_t parts;  // of one sum, for atomic and two_pass
  int64_t rows;   // that a thread of sum_exact_columns takes

  explicit Plan(const DeviceSum& job) : shape{job.outer, job.n, job.inner} {
    most_blocks = job.blocks > 0 ? job.blocks : blocks_at_once(kBlocksAProcessor);
    const int64_t results = std::max<int64_t>(shape.results(), 1);
    parts = std::clamp<int64_t>(most_blocks / results, 1, std::max<int64_t>(job.n / 4096, 1));
    rows = std::max<int64_t>(64, ceil_div(job.n * results, int64_t{most_blocks} * kThreads));
  }
  unsigned grid(int64_t works) const {
    return static_cast<unsigned>(std::clamp<int64_t>(works, 1, most_blocks));
  }
};

// Bytes of a first set of partials for fixed_order, and of what becomes of it in turn.
template <class Partial>
int64_t partials_bytes(const Plan& plan, int64_t count) {
  const int64_t results = plan.shape.results();
  return static_cast<int64_t>(sizeof(Partial)) * results * (count + ceil_div(count, kFold));
}

template <class T>
void fold(const Plan& plan, const DeviceSum& job, typename Element<T>::Partial* partials,
          int64_t count, Stream stream) {
  const int64_t results = plan.shape.results();
  auto* folded = partials + results * count;
  for (;;) {
    const int64_t groups = ceil_div(count, kFold);
    NDP_LAUNCH((sum_fold<T>), plan.grid(results * groups), kThreads, stream, partials, results,
               count, folded, groups == 1, job.n, job.mean, static_cast<T*>(job.results));
    if (groups == 1) return;
    std::swap(partials, folded);
    count = groups;
  }
}

template <class T>
int64_t workspace_of(const DeviceSum& job) {
  using Partial = typename Element<T>::Partial;
  const Plan plan(job);
  const int64_t results = plan.shape.results();
  switch (job.variant) {
    case SumVariant::atomic:
      return results * static_cast<int64_t>(sizeof(Partial));
    case SumVariant::two_pass:
      return partials_bytes<Partial>(plan, plan.parts);
    case SumVariant::fixed_order:
      return partials_bytes<Partial>(plan, ceil_div(job.n, kSumChunk));
    case SumVariant::binned:
      return results * ceil_div(job.n, kVisit) * static_cast<int64_t>(sizeof(BinnedPart));
    case SumVariant::exact:
      return results * static_cast<int64_t>(sizeof(ExactTotal));
    default:
      throw std::invalid_argument("sum has no kernel for this variant on a GPU");
  }
}

template <class T>
void sum_of(const DeviceSum& job, void* workspace, Stream stream) {
  using Partial = typename Element<T>::Partial;
  const Plan plan(job);
  const Shape shape = plan.shape;
  const int64_t results = shape.results();
  if (results == 0) return;
  const T* x = static_cast<const T*>(job.x);
  T* to = static_cast<T*>(job.results);
  auto* partials = static_cast<Partial*>(workspace);
  const unsigned by_results = plan.grid(ceil_div(results, kThreads));
  switch (job.variant) {
    case SumVariant::atomic:
      NDP_LAUNCH((sum_start_atomic<Partial>), by_results, kThreads, stream, partials, results);
      NDP_LAUNCH((sum_parts<T, SumVariant::atomic>), plan.grid(results * plan.parts), kThreads,
                 stream, x, shape, plan.parts, partials);
      NDP_LAUNCH((sum_finish_atomic<T>), by_results, kThreads, stream, partials, results, job.n,
                 job.mean, to);
      return;
    case SumVariant::two_pass:
      NDP_LAUNCH((sum_parts<T, SumVariant::two_pass>), plan.grid(results * plan.parts), kThreads,
                 stream, x, shape, plan.parts, partials);
      return fold<T>(plan, job, partials, plan.parts, stream);
    case SumVariant::fixed_order: {
      const int64_t chunks = ceil_div(job.n, kSumChunk);
      if (shape.inner == 1) {
        const unsigned grid = plan.grid(ceil_div(shape.outer * chunks, kThreads / kTeam<T>));
        const bool aligned = reinterpret_cast<uintptr_t>(x) % 16 == 0 &&
                             (shape.outer == 1 || shape.n % kVector<T> == 0);
        if (aligned)
          NDP_LAUNCH((sum_fixed_order_rows<T, true>), grid, kThreads, stream, x, shape.outer,
                     shape.n, partials);
        else
          NDP_LAUNCH((sum_fixed_order_rows<T, false>), grid, kThreads, stream, x, shape.outer,
                     shape.n, partials);
      } else {
        const int64_t works = shape.outer * ceil_div(shape.inner, kColumns) * chunks;
        NDP_LAUNCH((sum_fixed_order_columns<T>), plan.grid(works), kThreads, stream, x, shape,
                   partials);
      }
      return fold<T>(plan, job, partials, chunks, stream);
    }
    case SumVariant::binned: {
      auto* parts = static_cast<BinnedPart*>(workspace);
      NDP_LAUNCH((sum_binned<T>), plan.grid(results * ceil_div(job.n, kVisit)), kThreads, stream,
                 x, shape, parts);
      NDP_LAUNCH((sum_finish_binned<T>), by_results, kThreads, stream, parts, results, job.n,
                 job.mean, to);
      return;
    }
    default: {
      auto* totals = static_cast<ExactTotal*>(workspace);
      clear_on(stream, totals, static_cast<size_t>(results) * sizeof(ExactTotal));
      if (shape.inner < kColumns)
        NDP_LAUNCH((sum_exact<T>), plan.grid(results * ceil_div(job.n, kVisit)), kThreads, stream,
                   x, shape, totals);
      else
        NDP_LAUNCH((sum_exact_columns<T>),
                   plan.grid(ceil_div(results * ceil_div(job.n, plan.rows), kThreads)), kThreads,
                   stream, x, shape, plan.rows, totals);
      NDP_LAUNCH((sum_finish_exact<T>), by_results, kThreads, stream, totals, results, job.n,
                 job.mean, to);
      return;
    }
  }
}

}  // namespace

int64_t sum_workspace(const DeviceSum& job) {
  return by_dtype(job.dtype, "sum", [&](auto of) { return workspace_of<decltype(of)>(job); });
}

void sum(const DeviceSum& job, void* workspace, Stream stream) {
  by_dtype(job.dtype, "sum", [&](auto of) { sum_of<decltype(of)>(job, workspace, stream); });
}

}  // namespace ndp
