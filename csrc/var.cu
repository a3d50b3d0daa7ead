// `var` and `var_mean` on the device: docs/ops/var.md.
//
// In floating point a row is the work of a block (rows_device.hpp) or, where rows are too few for
// that, of many, each with a part of it. `exact` adds x and x^2 to fixed-point numbers as `sum` does;
// what becomes of them is in moments.hpp.
#include <algorithm>

#include "exact_device.hpp"
#include "moments.hpp"
#include "rows_device.hpp"
#include "var_device.hpp"

namespace ndp {

namespace {

constexpr int kBlocksAProcessor = 16;
// Rows whose exact sums are kept at a time.
constexpr int64_t kSlab = 4096;

template <class T>
struct Var {
  using Partial = typename Element<T>::Partial;
  const T* x;
  int64_t rows, n;
  int64_t correction;
  T *var, *mean;
  bool aligned;

  __device__ void store(int64_t row, Partial squares, Partial of_mean) const {
    const int64_t freedom = n > correction ? n - correction : 0;
    var[row] = rounded_to<T>(squares / static_cast<Partial>(freedom));
    mean[row] = rounded_to<T>(of_mean);
  }
};

// The sum of n elements from an address on, or of their squared distances from `mean`.
template <bool squared, class T, int kThreads>
__device__ inline typename Element<T>::Partial row_sum(Stage<T, kThreads>& x, const T* from,
                                                       int64_t n, bool aligned,
                                                       typename Element<T>::Partial mean,
                                                       typename Element<T>::Partial* room) {
  using Partial = typename Element<T>::Partial;
  Partial sum[1];
  row_sums<T, kThreads>(n, room, sum, [&](int64_t start, Partial* terms) {
    x.read_again(from, start, n, aligned);
    Stage<T, kThreads>::each(start, n, [&](int step, int64_t at, int count) {
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) {
        const Partial element = partial_of(x.held[step][i]);
        const Partial apart = element - mean;
        if (i < count) terms[at - start + i] = squared ? apart * apart : element;
      }
    });
  });
  return sum[0];
}

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) var_rows(Var<T> job) {
  using Partial = typename Element<T>::Partial;
  NDP_SHARED(Partial, room, (kSumRoom<T, kThreads, 1>));
  Stage<T, kThreads> x;
  for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
    const T* const from = job.x + row * job.n;
    x.read_first(from, job.n, job.aligned);
    const Partial mean = row_sum<false>(x, from, job.n, job.aligned, Partial{0}, room) /
                         static_cast<Partial>(job.n);
    const Partial squares = row_sum<true>(x, from, job.n, job.aligned, mean, room);
    if (threadIdx.x == 0) job.store(row, squares, mean);
  }
}

// parts[part, row]: of `length` elements of a row. sums: of the rows, where squared.
template <class T, bool squared>
__global__ void __launch_bounds__(kLongRow)
    var_parts(Var<T> job, int64_t length, const typename Element<T>::Partial* sums,
              typename Element<T>::Partial* parts) {
  using Partial = typename Element<T>::Partial;
  NDP_SHARED(Partial, room, (kSumRoom<T, kLongRow, 1>));
  Stage<T, kLongRow> x;
  const int64_t count = parts_of(job.n, length);
  for (int64_t work = blockIdx.x; work < job.rows * count; work += gridDim.x) {
    const int64_t row = work / count, part = work % count, start = part * length;
    const int64_t here = job.n - start < length ? job.n - start : length;
    const T* const from = job.x + row * job.n + start;
    const Partial mean = squared ? sums[row] / static_cast<Partial>(job.n) : Partial{0};
    x.read_first(from, here, job.aligned);
    const Partial sum = row_sum<squared>(x, from, here, job.aligned, mean, room);
    if (threadIdx.x == 0) parts[part * job.rows + row] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(kLongRow)
    var_finish(Var<T> job, const typename Element<T>::Partial* sums,
               const typename Element<T>::Partial* squares) {
  using Partial = typename Element<T>::Partial;
  for (int64_t row = int64_t{blockIdx.x} * kLongRow + threadIdx.x; row < job.rows;
       row += int64_t{gridDim.x} * kLongRow)
    job.store(row, squares[row], sums[row] / static_cast<Partial>(job.n));
}

// ---- exact

// Of a row, on their way: other blocks add to them.
struct MomentTotals {
  ExactTotal sum;
  ExactTotal squares;
  int64_t wide[kWideDigits];  // the squares that doubles do not hold, as digits of a WideAcc
};

constexpr int kExactWarps = kLongRow / kWarp;
// Elements of one block's visit to a row: every warp takes whole tiles of it.
constexpr int64_t kTile = int64_t{kWarp} * kTileLane;
constexpr int64_t kVisit = kTile * kExactWarps * 8;

// x^2 as high + low, exactly, of a finite x; to `wide` and 0 where doubles do not hold it.
__device__ inline void square_of(double x, double& high, double& low, int64_t* wide) {
  const double magnitude = x < 0 ? -x : x;
  high = low = 0;
  if (x == 0) return;
  if (magnitude >= 0x1p-480 && magnitude <= 0x1p500) {
    // Dekker: x cut into two halves of 26 bits, whose products are exact.
    const double far = 134217729.0 * x;
    const double upper = far - (far - x), lower = x - upper;
    high = x * x;
    low = ((upper * upper - high) + 2 * upper * lower) + lower * lower;
    return;
  }
  const Decoded of = decode(x);
  unsigned __int128 square = static_cast<unsigned __int128>(of.significand) * of.significand;
  const int position = 2 * of.exponent - kWideLowest;
  int64_t* digit = wide + (position >> 5);
  const int shift = position & 31;
  atomic_add(digit, static_cast<int64_t>((static_cast<uint64_t>(square) << shift) & 0xffffffff));
  for (square >>= 32 - shift; square != 0; square >>= 32)
    atomic_add(++digit, static_cast<int64_t>(static_cast<uint64_t>(square) & 0xffffffff));
}

// Rows [first, first + count), whose totals are `totals`.
template <class T>
__global__ void __launch_bounds__(kLongRow)
    var_exact(Var<T> job, int64_t first, int64_t count, MomentTotals* totals) {
  NDP_SHARED(ExactTotal, own, (2 * kExactWarps));  // sums, then sums of squares
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t visits = parts_of(job.n, kVisit);
  for (int64_t work = blockIdx.x; work < count * visits; work += gridDim.x) {
    MomentTotals& of_row = totals[work / visits];
    const T* const from = job.x + (first + work / visits) * job.n;
    const int64_t begin = work % visits * kVisit;
    const int64_t end = job.n - begin < kVisit ? job.n : begin + kVisit;
    clear_shared(own, 2 * kExactWarps);
    bool other = false;
    for (int64_t start = begin + warp * kTile; start < end; start += kExactWarps * kTile) {
      double tile[kTileLane], squares[kTileLane], lost[kTileLane];
#pragma unroll
      for (int i = 0; i < kTileLane; ++i) {
        const int64_t at = start + i * kWarp + lane;
        tile[i] = squares[i] = lost[i] = 0;
        if (at >= end) continue;
        const T element = from[at];
        other |= bits_of(element) != format_of_element<T>().sign;
        tile[i] = value_of(element);
        // An infinity or a NaN makes the variance NaN, whatever the squares are.
        if (!is_finite(tile[i])) continue;
        if constexpr (sizeof(T) == sizeof(double))
          square_of(tile[i], squares[i], lost[i], of_row.wide);
        else
          squares[i] = tile[i] * tile[i];
      }
      add_tile(tile, own[warp]);
      add_tile(squares, own[kExactWarps + warp]);
      if constexpr (sizeof(T) == sizeof(double)) add_tile(lost, own[kExactWarps + warp]);
    }
    if (other) atomicOr(&own[warp].flags, kNotNegativeZero);
    add_to_total(own, kExactWarps, of_row.sum);
    add_to_total(own + kExactWarps, kExactWarps, of_row.squares);
    __syncthreads();
  }
}

// The total, where 96 bits and a sign hold it: value * 2^unit.
__device__ inline bool narrow_total(const ExactTotal& total, __int128& value, int& unit) {
  constexpr int kHeld = 3;
  unsigned __int128 low_bits = 0;
  int64_t over = 0;
  int first = -1;
  bool zeros = true, ones = true;  // of the digits above
  for (int i = 0; i + 1 < kDigits; ++i) {
    const int64_t digit = total.digit[i] + over;
    const uint64_t low = static_cast<uint64_t>(digit) & 0xffffffff;
    over = digit >> 32;
    if (first < 0 && low == 0) continue;
    if (first < 0) first = i;
    if (i - first < kHeld) {
      low_bits |= static_cast<unsigned __int128>(low) << (32 * (i - first));
    } else {
      zeros = zeros && low == 0;
      ones = ones && low == 0xffffffff;
    }
  }
  const int64_t top = total.digit[kDigits - 1] + over;
  const bool negative = top == -1;
  value = static_cast<__int128>(low_bits);
  unit = kLowestExponent + 32 * first;
  if (first < 0) return top == 0;
  if (negative) value -= static_cast<__int128>(1) << (32 * kHeld);
  return first < kDigits - 1 - kHeld && (negative ? ones : zeros && top == 0);
}

template <class T>
__device__ inline void moments_of(const MomentTotals& totals, const Var<T>& job, uint64_t& var,
                                  uint64_t& mean) {
  const Format format = format_of_element<T>();
  const unsigned flags = totals.sum.flags;
  bool wide = (flags & (kNan | kPositiveInfinity | kNegativeInfinity)) != 0;
  if constexpr (sizeof(T) == sizeof(double))
    for (int i = 0; i < kWideDigits && !wide; ++i) wide = totals.wide[i] != 0;
  QuickMoments quick;
  if (!wide && narrow_total(totals.sum, quick.sum, quick.sum_unit) &&
      narrow_total(totals.squares, quick.squares, quick.squares_unit) &&
      finish(quick, job.n, job.correction, format, var, mean))
    return;
  Moments sums;
  clear(sums.sum.acc);
  clear(sums.squares.acc);
  constexpr int kBelowNarrow = (kLowestExponent - kWideLowest) / 32;
  for (int i = 0; i < kWideDigits; ++i) sums.squares.acc.digit[i] = totals.wide[i];
  for (int i = 0; i < kDigits; ++i) {
    sums.sum.acc.digit[kBelowNarrow + i] = totals.sum.digit[i];
    sums.squares.acc.digit[kBelowNarrow + i] += totals.squares.digit[i];
  }
  sums.sum.acc.specials = {(flags & kNan) != 0, (flags & kPositiveInfinity) != 0,
                           (flags & kNegativeInfinity) != 0};
  finish(sums, job.n, job.correction, format, var, mean);
}

template <class T>
__global__ void __launch_bounds__(kLongRow)
    var_finish_exact(Var<T> job, int64_t first, int64_t count, const MomentTotals* totals) {
  for (int64_t i = int64_t{blockIdx.x} * kLongRow + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * kLongRow) {
    uint64_t var, mean;
    moments_of(totals[i], job, var, mean);
    if (mean == 0 && (totals[i].sum.flags & kNotNegativeZero) == 0)
      mean = format_of_element<T>().sign;
    job.var[first + i] = element_of<T>(var);
    job.mean[first + i] = element_of<T>(mean);
  }
}

// ---- on the host

int most_blocks_of(const DeviceVar& job) {
  return job.blocks > 0 ? job.blocks : blocks_at_once(kBlocksAProcessor);
}

// Elements of a part of a row; 0 where a row is the work of one block.
int64_t part_length(const DeviceVar& job) {
  const int64_t blocks = job.blocks > 0 ? job.blocks : blocks_at_once(kBlocksAProcessor / 4);
  if (job.n <= kSumChunk || job.rows >= blocks) return 0;
  if (job.variant == VarVariant::fixed_order) return kSumChunk;
  const int64_t parts = std::clamp<int64_t>(blocks / job.rows, 1, job.n / kSumChunk);
  return parts_of(parts_of(job.n, parts), kSumLanes) * kSumLanes;
}

template <class T>
void var_in_floats(const DeviceVar& job, const Var<T>& of, void* workspace, Stream stream) {
  using Partial = typename Element<T>::Partial;
  const int64_t length = part_length(job);
  const int most_blocks = most_blocks_of(job);
  if (length == 0) {
    by_row_length<T>(job.n, [&](auto threads) {
      constexpr int kThreads = threads;
      NDP_LAUNCH((var_rows<T, kThreads>), grid_of(job.rows, most_blocks), kThreads, stream, of);
    });
    return;
  }
  const int64_t count = parts_of(job.n, length);
  const unsigned grid = grid_of(job.rows * count, most_blocks);
  auto* const parts = static_cast<Partial*>(workspace);
  Partial* const squares = parts + fold_room(count, job.rows);
  NDP_LAUNCH((var_parts<T, false>), grid, kLongRow, stream, of, length, nullptr, parts);
  const Partial* const sums = fold_all(parts, count, job.rows, most_blocks, stream);
  NDP_LAUNCH((var_parts<T, true>), grid, kLongRow, stream, of, length, sums, squares);
  const Partial* const of_squares = fold_all(squares, count, job.rows, most_blocks, stream);
  NDP_LAUNCH((var_finish<T>), grid_of(parts_of(job.rows, kLongRow), most_blocks), kLongRow, stream,
             of, sums, of_squares);
}

template <class T>
void var_exactly(const DeviceVar& job, const Var<T>& of, MomentTotals* totals, Stream stream) {
  const int most_blocks = most_blocks_of(job);
  for (int64_t first = 0; first < job.rows; first += kSlab) {
    const int64_t count = std::min(job.rows - first, kSlab);
    clear_on(stream, totals, static_cast<size_t>(count) * sizeof(MomentTotals));
    NDP_LAUNCH((var_exact<T>), grid_of(count * parts_of(job.n, kVisit), most_blocks), kLongRow,
               stream, of, first, count, totals);
    NDP_LAUNCH((var_finish_exact<T>), grid_of(parts_of(count, kLongRow), most_blocks), kLongRow,
               stream, of, first, count, totals);
  }
}

}  // namespace

int64_t var_mean_workspace(const DeviceVar& job) {
  if (job.variant == VarVariant::exact)
    return std::min(job.rows, kSlab) * static_cast<int64_t>(sizeof(MomentTotals));
  const int64_t length = part_length(job);
  if (length == 0) return 0;
  return 2 * fold_room(parts_of(job.n, length), job.rows) * (job.dtype == Dtype::float64 ? 8 : 4);
}

void var_mean(const DeviceVar& job, void* workspace, Stream stream) {
  by_row_dtype(job.dtype, [&](auto type) {
    using T = decltype(type);
    if (job.rows == 0) return;
    const T* const x = static_cast<const T*>(job.x);
    const Var<T> of{x,
                    job.rows,
                    job.n,
                    job.correction,
                    static_cast<T*>(job.var),
                    static_cast<T*>(job.mean),
                    aligned_rows<T>(job.rows > 1 ? job.n : 0, x)};
    if (job.variant == VarVariant::exact)
      var_exactly<T>(job, of, static_cast<MomentTotals*>(workspace), stream);
    else
      var_in_floats<T>(job, of, workspace, stream);
  });
}

}  // namespace ndp
