// layer_norm and rms_norm on the device: docs/ops/layer_norm.md. A row is the work of a block
// (rows_device.hpp). For rms_norm the mean is +0 and `level` -0, which change nothing.
//
// dgamma and dbeta are sums down columns. Where rows are short enough and parts many enough to fill
// the device, the block that makes dx of a part's rows keeps the part's sums in registers: x and dy
// are read once. Else a second kernel reads them again, column by column. The terms and their order
// are the same.
#include <algorithm>

#include "exact_device.hpp"
#include "layer_norm.hpp"
#include "layer_norm_device.hpp"
#include "rows_device.hpp"

namespace ndp {

namespace {

constexpr int kBlocksAProcessor = 16;
// Rows that a block of `atomic` adds up before it adds them to the shared floats.
constexpr int64_t kAtomicRows = 8;
// Parts of `two_pass`.
constexpr int kPartsAProcessor = 4;
// Bytes of rows under way that a processor needs to keep its memory busy: what arrives in the 2000
// cycles of a row.
constexpr int64_t kUnderWay = int64_t{32} << 10;
// Rows that a thread of norm_exact adds.
constexpr int64_t kExactVisit = 256;

template <class T>
struct Norm {
  using Partial = typename Element<T>::Partial;
  bool centred;
  int64_t rows, columns;
  const T *x, *gradient, *weight, *bias;
  Partial eps;
  Partial *mean, *scale;
  T* result;
  bool aligned;
};

__device__ inline float root(float x) { return sqrtf(x); }
__device__ inline double root(double x) { return sqrt(x); }

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) norm_forward(Norm<T> job) {
  using Partial = typename Element<T>::Partial;
  using Row = Stage<T, kThreads>;
  NDP_SHARED(Partial, room, (kSumRoom<T, kThreads, 1>));
  const int64_t n = job.columns;
  const Partial elements = static_cast<Partial>(n);
  Row x;
  for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
    const T* const from = job.x + row * n;
    x.read_first(from, n, job.aligned);
    Partial mean = 0, sum[1];
    if (job.centred) {
      row_sums<T, kThreads>(n, room, sum, [&](int64_t start, Partial* terms) {
        x.read_again(from, start, n, job.aligned);
        Row::each(start, n, [&](int step, int64_t at, int count) {
#pragma unroll
          for (int i = 0; i < kVector<T>; ++i)
            if (i < count) terms[at - start + i] = partial_of(x.held[step][i]);
        });
      });
      mean = sum[0] / elements;
    }
    row_sums<T, kThreads>(n, room, sum, [&](int64_t start, Partial* terms) {
      x.read_again(from, start, n, job.aligned);
      Row::each(start, n, [&](int step, int64_t at, int count) {
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          const Partial apart = partial_of(x.held[step][i]) - mean;
          if (i < count) terms[at - start + i] = apart * apart;
        }
      });
    });
    const Partial scale = 1 / root(sum[0] / elements + job.eps);
    for (int64_t start = 0; start < n; start += Row::kElements) {
      x.read_again(from, start, n, job.aligned);
      Row::each(start, n, [&](int step, int64_t at, int count) {
        Partial weight[kVector<T>], bias[kVector<T>];
        read_parameter(job.weight, at, count, job.aligned, Partial{1}, weight);
        read_parameter(job.bias, at, count, job.aligned, -Partial{0}, bias);
        T y[kVector<T>];
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          const Partial normed = (partial_of(x.held[step][i]) - mean) * scale;
          y[i] = rounded_to<T>(normed * weight[i] + bias[i]);
        }
        write_some(job.result + row * n + at, count, job.aligned, y);
      });
    }
    if (threadIdx.x == 0 && job.mean != nullptr) {
      job.mean[row] = tidied(mean);
      job.scale[row] = tidied(scale);
    }
  }
}

// ---- backward

// What becomes of the sums of a part's rows.
enum class Columns { none, parts, atomic };

// sums: [part, width] or, for `atomic`, [width]; dgamma's columns, then dbeta's.
template <class Partial>
struct Parts {
  int64_t rows;       // all of them
  int64_t rows_each;  // but for the last part
  int64_t width;
  Partial* sums;
  __host__ __device__ int64_t count() const { return parts_of(rows, rows_each); }
  __device__ int64_t first(int64_t part) const { return part * rows_each; }
  __device__ int64_t last(int64_t part) const {
    return rows - first(part) < rows_each ? rows : first(part) + rows_each;
  }
};

template <Columns columns, class Partial>
__device__ inline void put(const Parts<Partial>& parts, int64_t part, int64_t column, Partial sum) {
  if constexpr (columns == Columns::atomic)
    atomicAdd(&parts.sums[column], sum);
  else
    parts.sums[part * parts.width + column] = sum;
}

// With columns, only for rows of one stage.
template <class T, int kThreads, Columns columns>
__global__ void __launch_bounds__(kThreads)
    norm_backward(Norm<T> job, Parts<typename Element<T>::Partial> parts) {
  using Partial = typename Element<T>::Partial;
  using Row = Stage<T, kThreads>;
  constexpr int kKept = columns == Columns::none ? 1 : Row::kSteps;
  NDP_SHARED(Partial, room, (kSumRoom<T, kThreads, 2>));
  const int64_t n = job.columns;
  const Partial elements = static_cast<Partial>(n);
  Row x, dy;
  Partial gamma[kKept][kVector<T>], beta[kKept][kVector<T>];
  for (int64_t part = blockIdx.x; part < parts.count(); part += gridDim.x) {
#pragma unroll
    for (int step = 0; step < kKept; ++step)
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) gamma[step][i] = beta[step][i] = -Partial{0};
    for (int64_t row = parts.first(part); row < parts.last(part); ++row) {
      const T *const from = job.x + row * n, *const from_gradient = job.gradient + row * n;
      x.read_first(from, n, job.aligned);
      dy.read_first(from_gradient, n, job.aligned);
      const Partial mean = job.mean[row], scale = job.scale[row];
      Partial sums[2];
      row_sums<T, kThreads>(n, room, sums, [&](int64_t start, Partial* terms) {
        x.read_again(from, start, n, job.aligned);
        dy.read_again(from_gradient, start, n, job.aligned);
        Row::each(start, n, [&](int step, int64_t at, int count) {
          Partial weight[kVector<T>];
          read_parameter(job.weight, at, count, job.aligned, Partial{1}, weight);
#pragma unroll
          for (int i = 0; i < kVector<T>; ++i) {
            const Partial gradient = partial_of(dy.held[step][i]);
            const Partial term = gradient * ((partial_of(x.held[step][i]) - mean) * scale);
            if constexpr (columns != Columns::none) {
              gamma[step][i] += term;
              beta[step][i] += gradient;
            }
            if (i >= count) continue;
            terms[at - start + i] = term * weight[i];
            terms[Row::kElements + at - start + i] = gradient * weight[i];
          }
        });
      });
      const Partial along = sums[0] / elements;
      const Partial level = job.centred ? sums[1] / elements : -Partial{0};
      for (int64_t start = 0; start < n; start += Row::kElements) {
        x.read_again(from, start, n, job.aligned);
        dy.read_again(from_gradient, start, n, job.aligned);
        Row::each(start, n, [&](int step, int64_t at, int count) {
          Partial weight[kVector<T>];
          read_parameter(job.weight, at, count, job.aligned, Partial{1}, weight);
          T dx[kVector<T>];
#pragma unroll
          for (int i = 0; i < kVector<T>; ++i) {
            const Partial normed = (partial_of(x.held[step][i]) - mean) * scale;
            const Partial scaled = partial_of(dy.held[step][i]) * weight[i];
            dx[i] = rounded_to<T>((scaled - (normed * along + level)) * scale);
          }
          write_some(job.result + row * n + at, count, job.aligned, dx);
        });
      }
    }
    if constexpr (columns != Columns::none)
      Row::each(0, n, [&](int step, int64_t at, int count) {
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          if (i >= count) continue;
          put<columns>(parts, part, at + i, gamma[step][i]);
          if (job.centred) put<columns>(parts, part, n + at + i, beta[step][i]);
        }
      });
  }
}

// The columns' sums alone: a thread has kVector columns of a part.
template <class T, Columns columns>
__global__ void __launch_bounds__(kLongRow)
    norm_columns(Norm<T> job, Parts<typename Element<T>::Partial> parts) {
  using Partial = typename Element<T>::Partial;
  constexpr int kStrip = kLongRow * kVector<T>;
  const int64_t n = job.columns, strips = parts_of(n, kStrip);
  for (int64_t work = blockIdx.x; work < strips * parts.count(); work += gridDim.x) {
    const int64_t part = work / strips;
    const int64_t at = work % strips * kStrip + static_cast<int>(threadIdx.x) * kVector<T>;
    if (at >= n) continue;
    const int count = static_cast<int>(n - at < kVector<T> ? n - at : kVector<T>);
    Partial gamma[kVector<T>], beta[kVector<T>];
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) gamma[i] = beta[i] = -Partial{0};
#pragma unroll 4
    for (int64_t row = parts.first(part); row < parts.last(part); ++row) {
      T x[kVector<T>], dy[kVector<T>];
      read_some(job.x + row * n + at, count, job.aligned, x);
      read_some(job.gradient + row * n + at, count, job.aligned, dy);
      const Partial mean = job.mean[row], scale = job.scale[row];
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) {
        const Partial gradient = partial_of(dy[i]);
        gamma[i] += gradient * ((partial_of(x[i]) - mean) * scale);
        beta[i] += gradient;
      }
    }
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      if (i >= count) continue;
      put<columns>(parts, part, at + i, gamma[i]);
      if (job.centred) put<columns>(parts, part, n + at + i, beta[i]);
    }
  }
}

// One column of a visit to kExactVisit rows a thread. totals: as Parts::sums of one part.
template <class T>
__global__ void __launch_bounds__(kLongRow) norm_exact(Norm<T> job, ExactTotal* totals) {
  using Partial = typename Element<T>::Partial;
  const Partial negative_zero = -Partial{0};
  const int64_t n = job.columns, visits = parts_of(job.rows, kExactVisit);
  for (int64_t work = int64_t{blockIdx.x} * kLongRow + threadIdx.x; work < visits * n;
       work += int64_t{gridDim.x} * kLongRow) {
    const int64_t column = work % n, first = work / n * kExactVisit;
    const int64_t last = job.rows - first < kExactVisit ? job.rows : first + kExactVisit;
    PairSum gamma{0, 0}, beta{0, 0};
    bool other = false, other_gradient = false;
    for (int64_t row = first; row < last; ++row) {
      const Partial gradient = partial_of(job.gradient[row * n + column]);
      const Partial term =
          gradient * ((partial_of(job.x[row * n + column]) - job.mean[row]) * job.scale[row]);
      other |= bits_of(term) != bits_of(negative_zero);
      gamma.add(value_of(term), totals[column]);
      if (!job.centred) continue;
      other_gradient |= bits_of(gradient) != bits_of(negative_zero);
      beta.add(value_of(gradient), totals[n + column]);
    }
    gamma.done(totals[column]);
    if (other) atomicOr(&totals[column].flags, kNotNegativeZero);
    if (!job.centred) continue;
    beta.done(totals[n + column]);
    if (other_gradient) atomicOr(&totals[n + column].flags, kNotNegativeZero);
  }
}

// Sums, or exact totals, of the columns of dgamma and dbeta, as elements.
template <class T>
__global__ void __launch_bounds__(kLongRow)
    norm_finish(const typename Element<T>::Partial* sums, const ExactTotal* totals, int64_t rows,
                int64_t columns, int64_t width, T* dgamma, T* dbeta) {
  for (int64_t i = int64_t{blockIdx.x} * kLongRow + threadIdx.x; i < width;
       i += int64_t{gridDim.x} * kLongRow) {
    T* const to = i < columns ? dgamma : dbeta;
    if (to == nullptr) continue;
    to[i % columns] = totals != nullptr ? element_of<T>(round_total(totals[i], rows, false,
                                                                    format_of_element<T>()))
                                        : rounded_to<T>(sums[i]);
  }
}

// ---- on the host

int most_blocks_of(const DeviceNorm& job) {
  return job.blocks > 0 ? job.blocks : blocks_at_once(kBlocksAProcessor);
}

template <class T>
Norm<T> norm_of(const DeviceNorm& job) {
  using Partial = typename Element<T>::Partial;
  Norm<T> norm{};
  norm.centred = job.centred;
  norm.rows = job.rows;
  norm.columns = job.columns;
  norm.x = static_cast<const T*>(job.x);
  norm.gradient = static_cast<const T*>(job.gradient);
  norm.weight = static_cast<const T*>(job.weight);
  norm.bias = static_cast<const T*>(job.bias);
  norm.eps = static_cast<Partial>(job.eps);
  norm.mean = static_cast<Partial*>(job.statistics);
  norm.scale = norm.mean == nullptr ? nullptr : norm.mean + job.rows;
  norm.result = static_cast<T*>(job.result);
  norm.aligned = aligned_rows<T>(job.columns, norm.x, norm.gradient, norm.weight, norm.bias,
                                 norm.result);
  return norm;
}

// Of a part: dgamma's columns and, where there is one, dbeta's.
int64_t width_of(const DeviceNorm& job) { return (job.centred ? 2 : 1) * job.columns; }

int64_t rows_a_part(const DeviceNorm& job, RowsVariant variant) {
  switch (variant) {
    case RowsVariant::atomic:
      return kAtomicRows;
    case RowsVariant::two_pass:
      return parts_of(job.rows, job.blocks > 0 ? job.blocks : blocks_at_once(kPartsAProcessor));
    default:
      return kNormChunk;
  }
}

// The gradient of x and, with columns, the parts' sums.
template <class T, Columns columns>
void rows_and_columns(const DeviceNorm& job, const Parts<typename Element<T>::Partial>& parts,
                      Stream stream) {
  using Partial = typename Element<T>::Partial;
  const Norm<T> norm = norm_of<T>(job);
  const int most_blocks = most_blocks_of(job);
  if constexpr (columns != Columns::none) {
    const int64_t under_way = std::min<int64_t>(parts.count(), most_blocks) * 2 * job.columns *
                              static_cast<int64_t>(sizeof(T));
    const bool fills = job.blocks > 0 ? parts.count() >= job.blocks
                                      : under_way >= blocks_at_once(1) * kUnderWay;
    if (job.columns <= Stage<T, kLongRow>::kElements && fills) {
      NDP_LAUNCH((norm_backward<T, kLongRow, columns>), grid_of(parts.count(), most_blocks),
                 kLongRow, stream, norm, parts);
      return;
    }
  }
  by_row_length<T>(job.columns, [&](auto threads) {
    constexpr int kThreads = threads;
    const Parts<Partial> rows{job.rows, 1, 0, nullptr};
    NDP_LAUNCH((norm_backward<T, kThreads, Columns::none>), grid_of(job.rows, most_blocks),
               kThreads, stream, norm, rows);
  });
  if constexpr (columns != Columns::none) {
    const int64_t strips = parts_of(job.columns, kLongRow * kVector<T>);
    NDP_LAUNCH((norm_columns<T, columns>), grid_of(strips * parts.count(), most_blocks), kLongRow,
               stream, norm, parts);
  }
}

template <class T>
void backward(const DeviceNorm& job, RowsVariant variant, T* dgamma, T* dbeta, void* workspace,
              Stream stream) {
  using Partial = typename Element<T>::Partial;
  const int most_blocks = most_blocks_of(job);
  const int64_t width = width_of(job);
  const unsigned by_width = grid_of(parts_of(width, kLongRow), most_blocks);
  Parts<Partial> parts{job.rows, rows_a_part(job, variant), width,
                       static_cast<Partial*>(workspace)};
  if (dgamma == nullptr) return rows_and_columns<T, Columns::none>(job, parts, stream);
  const Partial* sums = parts.sums;
  ExactTotal* totals = nullptr;
  if (variant == RowsVariant::exact) {
    totals = static_cast<ExactTotal*>(workspace);
    clear_on(stream, totals, static_cast<size_t>(width) * sizeof(ExactTotal));
    rows_and_columns<T, Columns::none>(job, parts, stream);
    const int64_t works = parts_of(job.rows, kExactVisit) * job.columns;
    NDP_LAUNCH((norm_exact<T>), grid_of(parts_of(works, kLongRow), most_blocks), kLongRow, stream,
               norm_of<T>(job), totals);
  } else if (variant == RowsVariant::atomic) {
    NDP_LAUNCH((start_sums<Partial>), by_width, kFoldThreads, stream, parts.sums, width);
    rows_and_columns<T, Columns::atomic>(job, parts, stream);
  } else {
    rows_and_columns<T, Columns::parts>(job, parts, stream);
    sums = fold_all(parts.sums, parts.count(), width, most_blocks, stream);
  }
  NDP_LAUNCH((norm_finish<T>), by_width, kLongRow, stream, sums, totals, job.rows, job.columns,
             width, dgamma, dbeta);
}

}  // namespace

void layer_norm(const DeviceNorm& job, Stream stream) {
  by_row_dtype(job.dtype, [&](auto of) {
    using T = decltype(of);
    if (job.rows == 0 || job.columns == 0) return;
    by_row_length<T>(job.columns, [&](auto threads) {
      constexpr int kThreads = threads;
      NDP_LAUNCH((norm_forward<T, kThreads>), grid_of(job.rows, most_blocks_of(job)), kThreads,
                 stream, norm_of<T>(job));
    });
  });
}

int64_t layer_norm_workspace(const DeviceNorm& job, RowsVariant variant) {
  const int64_t width = width_of(job);
  if (job.rows == 0 || width == 0) return 0;
  if (variant == RowsVariant::exact) return width * static_cast<int64_t>(sizeof(ExactTotal));
  const int64_t parts = parts_of(job.rows, rows_a_part(job, variant));
  return (variant == RowsVariant::atomic ? width : fold_room(parts, width)) *
         (job.dtype == Dtype::float64 ? 8 : 4);
}

void layer_norm_backward(const DeviceNorm& job, RowsVariant variant, void* dgamma, void* dbeta,
                         void* workspace, Stream stream) {
  by_row_dtype(job.dtype, [&](auto of) {
    using T = decltype(of);
    if (job.rows == 0 || job.columns == 0) {
      const auto bytes = static_cast<size_t>(job.columns) * sizeof(T);
      if (dgamma != nullptr && bytes != 0) clear_on(stream, dgamma, bytes);
      if (dbeta != nullptr && bytes != 0) clear_on(stream, dbeta, bytes);
      return;
    }
    backward<T>(job, variant, static_cast<T*>(dgamma), static_cast<T*>(dbeta), workspace, stream);
  });
}

}  // namespace ndp
