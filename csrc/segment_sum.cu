// `segment_sum` on the device. A segment is cut into chunks, each column of which is the work of a
// thread, or of a warp where there are few columns and long segments. How many chunks there are
// stands in the offsets, which only the device knows; so a launch has a place for the first chunk of
// every segment, and for every `most` rows one for the later chunk, if any, that begins among them:
// two cannot, as a segment's chunks are `most` rows apart.
#include "exact_device.hpp"
#include "launches.hpp"
#include "narrow.hpp"
#include "segment_sum_device.hpp"
#include "sum.hpp"

namespace ndp {

namespace {

// Rows of a chunk. The format of `ordered` has the first of these.
template <SegmentVariant variant>
constexpr int64_t kMost = variant == SegmentVariant::atomic ? 64 : kSumChunk;

// Columns from which on threads read whole lines side by side, and rows from which on, on average, a
// warp has enough to do with one segment.
constexpr int64_t kSideBySide = 32;
constexpr int64_t kLongRows = 16;

// Offsets are kept in [0, rows], so that wrong ones make no kernel read elsewhere.
__device__ inline int64_t start_of(const Segments& job, int64_t segment) {
  const int64_t start = job.offsets[segment];
  return start < 0 ? 0 : start > job.rows ? job.rows : start;
}
__device__ inline int64_t rows_of(const Segments& job, int64_t segment) {
  const int64_t rows = start_of(job, segment + 1) - start_of(job, segment);
  return rows < 0 ? 0 : rows;
}

__global__ void __launch_bounds__(kBlockThreads) segment_check(Segments job, SegmentState* state) {
  for (int64_t segment = own_thread(); segment < job.segments; segment += all_threads())
    if (job.offsets[segment + 1] < job.offsets[segment])
      atomicMax(reinterpret_cast<unsigned long long*>(&state->negative),
                static_cast<unsigned long long>(INT64_MAX - segment));
  if (own_thread() == 0) state->unfit = job.offsets[0] != 0 || job.offsets[job.segments] != job.rows;
}

struct Chunk {
  int64_t segment;
  int64_t first;  // row
  int rows;       // 0 only where the segment has none
  bool whole;     // all of the segment
};

template <int64_t most>
__host__ __device__ inline int64_t places(const Segments& job) {
  return job.segments + divided_up(job.rows, most);
}

// The place of chunk `number`, from 1 on, of a segment.
template <int64_t most>
__device__ inline int64_t place_of(const Segments& job, int64_t start, int64_t number) {
  return job.segments + start / most + number;
}

// Whether there is a chunk at this place.
template <int64_t most>
__device__ inline bool chunk_at(const Segments& job, int64_t place, Chunk& chunk) {
  int64_t first, rows;
  if (place < job.segments) {
    chunk.segment = place;
    first = start_of(job, place);
    rows = rows_of(job, place);
    chunk.whole = rows <= most;
  } else {
    // The segment that row `begin` is in.
    const int64_t begin = (place - job.segments) * most;
    int64_t low = 0, high = job.segments;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (start_of(job, middle) <= begin ? low : high) = middle;
    }
    if (job.segments == 0) return false;
    chunk.segment = low;
    const int64_t start = start_of(job, low);
    if (start >= begin) return false;
    first = start + divided_up(begin - start, most) * most;
    rows = start + rows_of(job, low) - first;
    if (rows <= 0) return false;
    chunk.whole = false;
  }
  chunk.first = first;
  chunk.rows = static_cast<int>(rows < most ? rows : most);
  return true;
}

// body(chunk, column, place) for every column of every chunk: called by a thread of its own, or by
// all lanes of a warp.
template <int64_t most, bool by_warps, class Body>
__device__ inline void for_columns(const Segments& job, const Body& body) {
  constexpr int kThreads = by_warps ? kWarp : 1;
  const int64_t works = places<most>(job) * job.columns;
  for (int64_t work = own_thread() / kThreads; work < works; work += all_threads() / kThreads) {
    const int64_t place = job.columns == 1 ? work : work / job.columns;
    Chunk chunk;
    if (chunk_at<most>(job, place, chunk)) body(chunk, work - place * job.columns, place);
  }
}

// ---- ordered and atomic: docs/ops.md. 64 lanes of a chunk, folded in halves.

template <int half, class Partial>
__device__ __forceinline__ void fold_halves(Partial (&lane)[kSumLanes], int rows) {
  if (rows > half) {
#pragma unroll
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  if constexpr (half > 1) fold_halves<half / 2>(lane, rows);
}

// The column that begins at x; in a warp, lane 0 has the result. Lanes that no row reaches would
// hold -0, which adds nothing.
template <class T, bool by_warps>
__device__ inline typename Element<T>::Partial in_lanes(const T* x, int rows, int64_t columns) {
  using Partial = typename Element<T>::Partial;
  if constexpr (by_warps) {
    Partial low = -Partial{0}, high = -Partial{0};
#pragma unroll 4
    for (int row = static_cast<int>(threadIdx.x) % kWarp; row < rows; row += kSumLanes) {
      low += partial_of(x[row * columns]);
      if (row + kWarp < rows) high += partial_of(x[(row + kWarp) * columns]);
    }
    low += high;
#pragma unroll
    for (unsigned by = kWarp / 2; by > 0; by /= 2) low += __shfl_down_sync(kAllLanes, low, by);
    return low;
  } else {
    constexpr int kGroup = 8;
    Partial lane[kSumLanes];
#pragma unroll
    for (int i = 0; i < kSumLanes; ++i) lane[i] = -Partial{0};
    for (int row = 0; row < rows; row += kSumLanes) {
#pragma unroll
      for (int group = 0; group < kSumLanes / kGroup; ++group) {
        if (row + group * kGroup < rows) {
#pragma unroll
          for (int i = 0; i < kGroup; ++i) {
            const int at = row + group * kGroup + i;
            if (at < rows) lane[group * kGroup + i] += partial_of(x[at * columns]);
          }
        }
      }
    }
    fold_halves<kSumLanes / 2>(lane, rows);
    return lane[0];
  }
}

// parts: for `ordered` [places, columns], for `atomic` [segments, columns].
template <class T, SegmentVariant variant, bool by_warps>
__global__ void __launch_bounds__(kBlockThreads)
    segment_add(Segments job, T* result, typename Element<T>::Partial* parts) {
  const T* data = static_cast<const T*>(job.data);
  const bool writes = !by_warps || threadIdx.x % kWarp == 0;
  for_columns<kMost<variant>, by_warps>(
      job, [&](const Chunk& chunk, int64_t column, int64_t place) {
        const auto sum = in_lanes<T, by_warps>(data + chunk.first * job.columns + column,
                                               chunk.rows, job.columns);
        if (!writes) return;
        if constexpr (variant == SegmentVariant::atomic) {
          if (chunk.rows > 0) atomicAdd(&parts[chunk.segment * job.columns + column], sum);
        } else {
          if (chunk.whole)
            result[chunk.segment * job.columns + column] =
                rounded_to<T>(chunk.rows > 0 ? sum : 0);
          else
            parts[place * job.columns + column] = sum;
        }
      });
}

template <class Partial>
__global__ void __launch_bounds__(kBlockThreads)
    segment_start_atomic(Partial* parts, int64_t count) {
  for (int64_t i = own_thread(); i < count; i += all_threads()) parts[i] = -Partial{0};
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    segment_finish_atomic(Segments job, T* result, const typename Element<T>::Partial* parts) {
  for (int64_t i = own_thread(); i < job.segments * job.columns; i += all_threads())
    result[i] = rounded_to<T>(rows_of(job, i / job.columns) > 0 ? parts[i] : 0);
}

// Of segments of several chunks: rounds of neighbours, the last of an odd number waiting.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    segment_fold(Segments job, T* result, const typename Element<T>::Partial* parts) {
  using Partial = typename Element<T>::Partial;
  constexpr int64_t kRows = kMost<SegmentVariant::ordered>;
  for (int64_t i = own_thread(); i < job.segments * job.columns; i += all_threads()) {
    const int64_t segment = i / job.columns, column = i % job.columns;
    const int64_t chunks = divided_up(rows_of(job, segment), kRows);
    if (chunks <= 1) continue;
    const int64_t start = start_of(job, segment);
    // waiting[k]: a sum of 2^k chunks; which there are stands in the bits of `number`.
    Partial waiting[52];
    for (int64_t number = 0; number < chunks; ++number) {
      const int64_t place = number == 0 ? segment : place_of<kRows>(job, start, number);
      Partial sum = parts[place * job.columns + column];
      int k = 0;
      for (; number >> k & 1; ++k) sum = waiting[k] + sum;
      waiting[k] = sum;
    }
    int k = 0;
    while (!(chunks >> k & 1)) ++k;
    Partial sum = waiting[k];
    for (++k; chunks >> k != 0; ++k)
      if (chunks >> k & 1) sum = waiting[k] + sum;
    result[i] = rounded_to<T>(sum);
  }
}

// ---- exact

// The sum of some elements as high + low, unless it is bad.
struct Pair {
  double high, low;
  bool bad;
};

// a becomes the rounded sum; what is lost by that (Knuth; infinite or NaN where something overflows).
__device__ inline double two_sum(double& a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  const double lost = (a - (sum - part)) + (b - part);
  a = sum;
  return lost;
}

__device__ inline void add(Pair& pair, double high, double low) {
  const double lost = two_sum(pair.high, high);
  const double rest = two_sum(pair.low, lost);
  pair.bad |= rest != 0 || two_sum(pair.low, low) != 0;
}

template <class T, bool by_warps>
__device__ inline Pair in_pair(const T* x, int rows, int64_t columns) {
  Pair pair{-0.0, 0.0, false};
  int row = by_warps ? static_cast<int>(threadIdx.x) % kWarp : 0;
#pragma unroll 8
  for (; row < rows; row += by_warps ? kWarp : 1) {
    const double lost = two_sum(pair.high, value_of(x[row * columns]));
    pair.bad |= two_sum(pair.low, lost) != 0;
  }
  if (by_warps)
#pragma unroll
    for (int by = kWarp / 2; by > 0; by /= 2) {
      const double high = __shfl_xor_sync(kAllLanes, pair.high, by);
      const double low = __shfl_xor_sync(kAllLanes, pair.low, by);
      pair.bad |= __shfl_xor_sync(kAllLanes, static_cast<int>(pair.bad), by) != 0;
      add(pair, high, low);
    }
  pair.bad |= !(pair.high - pair.high == 0);
  return pair;
}

// left[segment, column]: whether segment_finish_exact has something to do there; cleared before.
template <class T, bool by_warps>
__global__ void __launch_bounds__(kBlockThreads)
    segment_pairs(Segments job, T* result, Pair* parts, uint8_t* left) {
  const T* data = static_cast<const T*>(job.data);
  const bool writes = !by_warps || threadIdx.x % kWarp == 0;
  for_columns<kMost<SegmentVariant::exact>, by_warps>(
      job, [&](const Chunk& chunk, int64_t column, int64_t place) {
        const Pair pair = in_pair<T, by_warps>(data + chunk.first * job.columns + column,
                                               chunk.rows, job.columns);
        if (!writes) return;
        const int64_t to = chunk.segment * job.columns + column;
        if (chunk.rows == 0) {
          result[to] = rounded_to<T>(0);
        } else if (chunk.whole && !pair.bad) {
          result[to] =
              element_of<T>(round_pair(pair.high, pair.low, format_of_element<T>()));
        } else {
          parts[place * job.columns + column] = pair;
          left[to] = 1;
        }
      });
}

// Segments of several chunks, and of one that no pair holds.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    segment_finish_exact(Segments job, T* result, const Pair* parts, const uint8_t* left) {
  constexpr int64_t kRows = kMost<SegmentVariant::exact>;
  const T* data = static_cast<const T*>(job.data);
  for (int64_t i = own_thread(); i < job.segments * job.columns; i += all_threads()) {
    if (!left[i]) continue;
    const int64_t segment = i / job.columns, column = i % job.columns;
    const int64_t start = start_of(job, segment), rows = rows_of(job, segment);
    Superacc acc;
    clear(acc);
    bool zeros = true;  // whether all parts are -0
    for (int64_t first = 0; first < rows; first += kRows) {
      const int64_t number = first / kRows;
      const int64_t place = number == 0 ? segment : place_of<kRows>(job, start, number);
      const Pair& part = parts[place * job.columns + column];
      const int64_t end = rows - first < kRows ? rows : first + kRows;
      zeros = zeros && __double_as_longlong(part.high) == INT64_MIN;
      make_room(acc, kRows);
      if (part.bad) {
        for (int64_t row = first; row < end; ++row)
          deposit(acc, value_of(data[(start + row) * job.columns + column]));
      } else {
        deposit(acc, part.high);
        deposit(acc, part.low);
      }
    }
    result[i] = element_of<T>(round_to(acc, format_of_element<T>(), zeros));
  }
}

// ---- on the host

bool by_warps(const Segments& job) {
  return job.columns < kSideBySide && job.rows >= kLongRows * job.segments;
}

template <int64_t most>
unsigned grid_of_chunks(const DeviceSegments& given) {
  const int64_t works = places<most>(given.job) * given.job.columns;
  return grid_for(by_warps(given.job) ? works * kWarp : works, given.blocks);
}

template <class T, SegmentVariant variant>
void add_chunks(const DeviceSegments& given, typename Element<T>::Partial* parts, Stream stream) {
  const unsigned grid = grid_of_chunks<kMost<variant>>(given);
  T* result = static_cast<T*>(given.result);
  if (by_warps(given.job))
    NDP_LAUNCH((segment_add<T, variant, true>), grid, kBlockThreads, stream, given.job, result,
               parts);
  else
    NDP_LAUNCH((segment_add<T, variant, false>), grid, kBlockThreads, stream, given.job, result,
               parts);
}

template <class T>
void segment_sum_of(SegmentVariant variant, const DeviceSegments& given, void* workspace,
                    Stream stream) {
  using Partial = typename Element<T>::Partial;
  const Segments& job = given.job;
  T* result = static_cast<T*>(given.result);
  const int64_t results = job.segments * job.columns;
  const unsigned by_results = grid_for(results, given.blocks);
  auto* parts = static_cast<Partial*>(workspace);
  switch (variant) {
    case SegmentVariant::atomic:
      NDP_LAUNCH((segment_start_atomic<Partial>), by_results, kBlockThreads, stream, parts,
                 results);
      add_chunks<T, SegmentVariant::atomic>(given, parts, stream);
      NDP_LAUNCH((segment_finish_atomic<T>), by_results, kBlockThreads, stream, job, result, parts);
      return;
    case SegmentVariant::ordered:
      add_chunks<T, SegmentVariant::ordered>(given, parts, stream);
      NDP_LAUNCH((segment_fold<T>), by_results, kBlockThreads, stream, job, result, parts);
      return;
    case SegmentVariant::exact: {
      constexpr int64_t kRows = kMost<SegmentVariant::exact>;
      auto* pairs = static_cast<Pair*>(workspace);
      auto* left = reinterpret_cast<uint8_t*>(pairs + places<kRows>(job) * job.columns);
      clear_on(stream, left, static_cast<size_t>(results));
      const unsigned grid = grid_of_chunks<kRows>(given);
      if (by_warps(job))
        NDP_LAUNCH((segment_pairs<T, true>), grid, kBlockThreads, stream, job, result, pairs, left);
      else
        NDP_LAUNCH((segment_pairs<T, false>), grid, kBlockThreads, stream, job, result, pairs,
                   left);
      NDP_LAUNCH((segment_finish_exact<T>), by_results, kBlockThreads, stream, job, result, pairs,
                 left);
      return;
    }
  }
}

}  // namespace

int64_t segment_sum_workspace(SegmentVariant variant, const DeviceSegments& given) {
  const Segments& job = given.job;
  return with_element(job.dtype, "segment_sum", [&](auto of) -> int64_t {
    constexpr int64_t kPartial = sizeof(typename Element<decltype(of)>::Partial);
    const int64_t results = job.segments * job.columns;
    switch (variant) {
      case SegmentVariant::atomic:
        return results * kPartial;
      case SegmentVariant::ordered:
        return places<kMost<SegmentVariant::ordered>>(job) * job.columns * kPartial;
      default:
        return places<kMost<SegmentVariant::exact>>(job) * job.columns *
                   static_cast<int64_t>(sizeof(Pair)) +
               results;
    }
  });
}

void segment_sum(SegmentVariant variant, const DeviceSegments& given, void* workspace,
                 Stream stream) {
  NDP_LAUNCH((segment_check), grid_for(given.job.segments, given.blocks), kBlockThreads, stream,
             given.job, given.state);
  if (given.job.columns == 0 || given.job.segments == 0) return;
  with_element(given.job.dtype, "segment_sum", [&](auto of) {
    segment_sum_of<decltype(of)>(variant, given, workspace, stream);
  });
}

}  // namespace ndp
