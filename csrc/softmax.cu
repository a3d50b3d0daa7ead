// softmax, log_softmax and cross_entropy on the device: docs/ops/softmax.md and cross_entropy.md. A
// row is the work of a block (rows_device.hpp).
#include <algorithm>

#include "exact_device.hpp"
#include "exp_log.hpp"
#include "rows_device.hpp"
#include "softmax_device.hpp"
#include "sum_device.hpp"

namespace ndp {

namespace {

constexpr int kBlocksAProcessor = 16;
// Losses that `atomic` adds in order before it adds them to the shared float.
constexpr int64_t kAtomicRows = 8;
// Losses that a thread of entropy_exact adds: its total is in global memory.
constexpr int64_t kExactVisit = 64;

__device__ inline float exp_at(float x) { return exp_of<Exp32, float, uint32_t>(x); }
__device__ inline double exp_at(double x) { return exp_of<Exp64, double, uint64_t>(x); }

// The largest of a row, for all threads of the block; NaNs are passed over, and -inf is what is left
// of nothing. room: a Partial for each warp.
template <class T, int kThreads>
__device__ inline typename Element<T>::Partial largest_of(Stage<T, kThreads>& x, const T* row,
                                                          int64_t n, bool aligned,
                                                          typename Element<T>::Partial* room) {
  using Partial = typename Element<T>::Partial;
  using Row = Stage<T, kThreads>;
  Partial most = static_cast<Partial>(-__builtin_inf());
  for (int64_t start = 0; start < n; start += Row::kElements) {
    x.read_again(row, start, n, aligned);
    Row::each(start, n, [&](int step, int64_t, int count) {
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) {
        const Partial element = partial_of(x.held[step][i]);
        if (i < count) most = element > most ? element : most;
      }
    });
  }
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2) {
    const Partial other = __shfl_xor_sync(kAllLanes, most, by);
    most = other > most ? other : most;
  }
  if (kThreads == kWarp) return most;
  __syncthreads();  // what lay in the room before has been read
  if (threadIdx.x % kWarp == 0) room[threadIdx.x / kWarp] = most;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarp; ++warp) most = room[warp] > most ? room[warp] : most;
  return most;
}

// The sum of exp(x - most); of a row of one stage the terms stay in the room.
template <class T, int kThreads>
__device__ inline typename Element<T>::Partial exp_sum(Stage<T, kThreads>& x, const T* row,
                                                       int64_t n, bool aligned,
                                                       typename Element<T>::Partial most,
                                                       typename Element<T>::Partial* room) {
  using Partial = typename Element<T>::Partial;
  Partial total[1];
  row_sums<T, kThreads>(n, room, total, [&](int64_t start, Partial* terms) {
    x.read_again(row, start, n, aligned);
    Stage<T, kThreads>::each(start, n, [&](int step, int64_t at, int count) {
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i)
        if (i < count) terms[at - start + i] = exp_at(partial_of(x.held[step][i]) - most);
    });
  });
  return total[0];
}

template <class T>
struct Rows {
  bool log;
  int64_t rows, columns;
  const T *x, *gradient;
  T* result;
  bool aligned;
};

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) softmax_forward(Rows<T> job) {
  using Partial = typename Element<T>::Partial;
  using Row = Stage<T, kThreads>;
  NDP_SHARED(Partial, room, (kSumRoom<T, kThreads, 1>));
  const int64_t n = job.columns;
  Row x;
  for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
    const T* const from = job.x + row * n;
    x.read_first(from, n, job.aligned);
    const Partial most = largest_of(x, from, n, job.aligned, room);
    const Partial total = exp_sum(x, from, n, job.aligned, most, room);
    const Partial all = job.log ? static_cast<Partial>(log_of(static_cast<double>(total))) : total;
    for (int64_t start = 0; start < n; start += Row::kElements) {
      x.read_again(from, start, n, job.aligned);
      Row::each(start, n, [&](int step, int64_t at, int count) {
        T y[kVector<T>];
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          const Partial apart = partial_of(x.held[step][i]) - most;
          // Each thread's own terms, written by itself.
          y[i] = rounded_to<T>(job.log                ? apart - all
                               : n <= Row::kElements ? room[at + i < n ? at + i : at] / all
                                                      : exp_at(apart) / all);
        }
        write_some(job.result + row * n + at, count, job.aligned, y);
      });
    }
  }
}

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) softmax_backward_rows(Rows<T> job) {
  using Partial = typename Element<T>::Partial;
  using Row = Stage<T, kThreads>;
  NDP_SHARED(Partial, room, (kSumRoom<T, kThreads, 1>));
  const int64_t n = job.columns;
  Row y, dy;
  for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
    const T *const from = job.x + row * n, *const from_gradient = job.gradient + row * n;
    y.read_first(from, n, job.aligned);
    dy.read_first(from_gradient, n, job.aligned);
    Partial all[1];
    row_sums<T, kThreads>(n, room, all, [&](int64_t start, Partial* terms) {
      y.read_again(from, start, n, job.aligned);
      dy.read_again(from_gradient, start, n, job.aligned);
      Row::each(start, n, [&](int step, int64_t at, int count) {
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          const Partial gradient = partial_of(dy.held[step][i]);
          if (i < count)
            terms[at - start + i] =
                job.log ? gradient : gradient * partial_of(y.held[step][i]);
        }
      });
    });
    for (int64_t start = 0; start < n; start += Row::kElements) {
      y.read_again(from, start, n, job.aligned);
      dy.read_again(from_gradient, start, n, job.aligned);
      Row::each(start, n, [&](int step, int64_t at, int count) {
        T dx[kVector<T>];
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          const Partial gradient = partial_of(dy.held[step][i]);
          const Partial result = partial_of(y.held[step][i]);
          dx[i] = rounded_to<T>(job.log ? gradient - exp_at(result) * all[0]
                                        : (gradient - all[0]) * result);
        }
        write_some(job.result + row * n + at, count, job.aligned, dx);
      });
    }
  }
}

// ---- cross_entropy

template <class T>
struct EntropyOf {
  using Partial = typename Element<T>::Partial;
  int64_t rows, columns;
  const T *x, *weight;
  const int64_t* target;
  int64_t ignored;
  double smoothing;
  Partial *most, *total;
  // Forward:
  Partial *loss, *row_weight;  // of each row; the second null without weights
  T* none;                     // the losses as elements; null where they are added
  unsigned long long* counted;
  int64_t* first_bad;
  // Backward:
  const T* gradient;
  Reduction reduction;
  const double* weights;
  T* result;
  bool aligned;

  __device__ Partial weight_at(int64_t column) const {
    return weight == nullptr ? Partial{1} : partial_of(weight[column]);
  }
};

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) entropy_rows(EntropyOf<T> job) {
  using Partial = typename Element<T>::Partial;
  using Row = Stage<T, kThreads>;
  NDP_SHARED(Partial, room, (kSumRoom<T, kThreads, 1>));
  const int64_t n = job.columns;
  Row x;
  unsigned long long counted = 0;
  for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
    const int64_t target = job.target[row];
    Partial loss = 0, most = 0, total = 0, weight = 0;
    if (target == job.ignored) {
    } else if (target < 0 || target >= n) {
      if (threadIdx.x == 0)
        atomicMin(reinterpret_cast<long long*>(job.first_bad), static_cast<long long>(row));
    } else {
      ++counted;
      const T* const from = job.x + row * n;
      weight = job.weight_at(target);
      x.read_first(from, n, job.aligned);
      most = largest_of(x, from, n, job.aligned, room);
      total = exp_sum(x, from, n, job.aligned, most, room);
      const double log_total = log_of(static_cast<double>(total));
      const double here = value_of(from[target]);
      double found =
          static_cast<double>(weight) * (log_total - (here - static_cast<double>(most)));
      if (job.smoothing != 0) {
        const Partial log_of_total = static_cast<Partial>(log_total);
        Partial apart[1];
        row_sums<T, kThreads>(n, room, apart, [&](int64_t start, Partial* terms) {
          x.read_again(from, start, n, job.aligned);
          Row::each(start, n, [&](int step, int64_t at, int count) {
            Partial weights[kVector<T>];
            read_parameter(job.weight, at, count, job.aligned, Partial{1}, weights);
#pragma unroll
            for (int i = 0; i < kVector<T>; ++i)
              if (i < count)
                terms[at - start + i] =
                    weights[i] * (log_of_total - (partial_of(x.held[step][i]) - most));
          });
        });
        found = found * (1 - job.smoothing) +
                static_cast<double>(apart[0]) * (job.smoothing / static_cast<double>(n));
      }
      loss = tidied(static_cast<Partial>(found));
      total = tidied(total);
    }
    if (threadIdx.x != 0) continue;
    job.loss[row] = loss;
    if (job.most != nullptr) {
      job.most[row] = most;
      job.total[row] = total;
    }
    if (job.row_weight != nullptr) job.row_weight[row] = weight;
    if (job.none != nullptr) job.none[row] = rounded_to<T>(loss);
  }
  if (threadIdx.x == 0 && counted != 0) atomicAdd(job.counted, counted);
}

template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) entropy_backward(EntropyOf<T> job) {
  using Partial = typename Element<T>::Partial;
  using Row = Stage<T, kThreads>;
  NDP_SHARED(Partial, room, (kSumRoom<T, kThreads, 1>));
  const int64_t n = job.columns;
  const bool smoothed = job.smoothing != 0;
  const double apart = job.smoothing / static_cast<double>(n);
  const Partial smooth = static_cast<Partial>(apart);
  Row x;
  Partial all = static_cast<Partial>(n);
  if (smoothed && job.weight != nullptr) {
    Partial sum[1];
    x.read_first(job.weight, n, job.aligned);
    row_sums<T, kThreads>(n, room, sum, [&](int64_t start, Partial* terms) {
      x.read_again(job.weight, start, n, job.aligned);
      Row::each(start, n, [&](int step, int64_t at, int count) {
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i)
          if (i < count) terms[at - start + i] = partial_of(x.held[step][i]);
      });
    });
    all = sum[0];
  }
  for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
    const int64_t target = job.target[row];
    // Forward has refused what is no class; here it only must not be read.
    const bool counts = target != job.ignored && target >= 0 && target < n;
    Partial outer = partial_of(job.gradient[job.reduction == Reduction::none ? row : 0]);
    if (job.reduction == Reduction::mean)
      outer = static_cast<Partial>(static_cast<double>(outer) / *job.weights);
    const Partial hit =
        counts ? static_cast<Partial>(1 - job.smoothing) * job.weight_at(target) : Partial{0};
    const Partial level = hit + static_cast<Partial>(apart * static_cast<double>(all));
    const Partial most = job.most[row], scale = level / job.total[row];
    const T* const from = job.x + row * n;
    for (int64_t start = 0; start < n; start += Row::kElements) {
      if (counts) x.read(from, start, n, job.aligned);
      Row::each(start, n, [&](int step, int64_t at, int count) {
        T dx[kVector<T>]{};
        if (counts) {
          Partial weights[kVector<T>];
          read_parameter(smoothed ? job.weight : nullptr, at, count, job.aligned, Partial{1},
                         weights);
#pragma unroll
          for (int i = 0; i < kVector<T>; ++i) {
            Partial slope = exp_at(partial_of(x.held[step][i]) - most) * scale;
            if (smoothed) slope -= smooth * weights[i];
            dx[i] = rounded_to<T>((at + i == target ? slope - hit : slope) * outer);
          }
        }
        write_some(job.result + row * n + at, count, job.aligned, dx);
      });
    }
  }
}

// Losses, and weights where there are any, of kAtomicRows rows a thread, to the two of `sums`.
template <class Partial>
__global__ void __launch_bounds__(kLongRow)
    entropy_atomic(const Partial* loss, const Partial* weight, int64_t rows, Partial* sums) {
  for (int64_t work = int64_t{blockIdx.x} * kLongRow + threadIdx.x; work * kAtomicRows < rows;
       work += int64_t{gridDim.x} * kLongRow) {
    const int64_t first = work * kAtomicRows;
    const int64_t last = rows - first < kAtomicRows ? rows : first + kAtomicRows;
    Partial of_loss = -Partial{0}, of_weight = -Partial{0};
    for (int64_t row = first; row < last; ++row) {
      of_loss += loss[row];
      if (weight != nullptr) of_weight += weight[row];
    }
    atomicAdd(&sums[0], of_loss);
    if (weight != nullptr) atomicAdd(&sums[1], of_weight);
  }
}

template <class Partial>
__global__ void __launch_bounds__(kLongRow)
    entropy_exact(const Partial* values, int64_t rows, ExactTotal* total) {
  const Partial negative_zero = -Partial{0};
  for (int64_t work = int64_t{blockIdx.x} * kLongRow + threadIdx.x; work * kExactVisit < rows;
       work += int64_t{gridDim.x} * kLongRow) {
    const int64_t first = work * kExactVisit;
    const int64_t last = rows - first < kExactVisit ? rows : first + kExactVisit;
    PairSum sum{0, 0};
    bool other = false;
    for (int64_t row = first; row < last; ++row) {
      other |= bits_of(values[row]) != bits_of(negative_zero);
      sum.add(value_of(values[row]), *total);
    }
    sum.done(*total);
    if (other) atomicOr(&total->flags, kNotNegativeZero);
  }
}

__device__ inline double as_double(const ExactTotal& total, int64_t n) {
  return element_of<double>(round_total(total, n, false, format64()));
}

// One thread: the loss from the sums of losses and weights, or from their exact totals.
template <class T>
__global__ void entropy_finish(const typename Element<T>::Partial* sums, const ExactTotal* totals,
                               const unsigned long long* counted, int64_t rows, bool weighted,
                               Reduction reduction, T* result, double* weights) {
  using Partial = typename Element<T>::Partial;
  const int64_t count = static_cast<int64_t>(*counted);
  *weights = static_cast<double>(count);
  if (reduction == Reduction::none) return;
  const Format format = format_of_element<T>();
  if (totals == nullptr) {
    if (weighted) *weights = static_cast<double>(sums[1]);
    *result = rounded_to<T>(reduction == Reduction::sum ? sums[0]
                                                        : sums[0] / static_cast<Partial>(*weights));
    return;
  }
  if (weighted) *weights = as_double(totals[1], rows);
  if (reduction == Reduction::sum)
    *result = element_of<T>(round_total(totals[0], rows, false, format));
  else if (weighted || count == 0)
    *result = element_of<T>(round_double(as_double(totals[0], rows) / *weights, format));
  else
    *result = element_of<T>(round_total(totals[0], count, true, format));
}

// ---- on the host

int most_blocks_of(int blocks) { return blocks > 0 ? blocks : blocks_at_once(kBlocksAProcessor); }

template <class T>
Rows<T> rows_of(const DeviceSoftmax& job) {
  const T *x = static_cast<const T*>(job.x), *gradient = static_cast<const T*>(job.gradient);
  T* const result = static_cast<T*>(job.result);
  return {job.log, job.rows, job.columns, x, gradient, result,
          aligned_rows<T>(job.columns, x, gradient, result)};
}

// What lies in the workspace, in turn; the rest is for `sum`.
struct Room {
  ExactTotal totals[2];
  double sums[2];  // or floats
  double weights;  // where nobody asks for them
  unsigned long long counted;
};
template <class Partial>
struct Workspace {
  Room* room;
  Partial *loss, *row_weight;
  void* for_sum;
  static int64_t bytes(int64_t rows) {
    return static_cast<int64_t>(sizeof(Room)) +
           parts_of(2 * rows * static_cast<int64_t>(sizeof(Partial)), 16) * 16;
  }
  Workspace(void* memory, int64_t rows)
      : room(static_cast<Room*>(memory)),
        loss(reinterpret_cast<Partial*>(room + 1)),
        row_weight(loss + rows),
        for_sum(static_cast<char*>(memory) + bytes(rows)) {}
};

template <class T>
EntropyOf<T> entropy_of(const DeviceEntropy& job) {
  using Partial = typename Element<T>::Partial;
  EntropyOf<T> of{};
  of.rows = job.rows;
  of.columns = job.columns;
  of.x = static_cast<const T*>(job.x);
  of.weight = static_cast<const T*>(job.weight);
  of.target = job.target;
  of.ignored = job.options.ignored;
  of.smoothing = job.options.smoothing;
  of.reduction = job.options.reduction;
  of.most = static_cast<Partial*>(job.statistics);
  of.total = of.most == nullptr ? nullptr : of.most + job.rows;
  of.gradient = static_cast<const T*>(job.gradient);
  of.weights = job.weights;
  of.result = static_cast<T*>(job.result);
  return of;
}

template <class Partial>
DeviceSum sum_of(const DeviceEntropy& job, RowsVariant variant, const Partial* values,
                 Partial* result) {
  return {variant == RowsVariant::two_pass ? SumVariant::two_pass : SumVariant::fixed_order,
          sizeof(Partial) == 8 ? Dtype::float64 : Dtype::float32,
          false,
          values,
          1,
          job.rows,
          1,
          result,
          job.blocks};
}

template <class T>
void entropy(const DeviceEntropy& job, RowsVariant variant, int64_t* first_bad, void* memory,
             Stream stream) {
  using Partial = typename Element<T>::Partial;
  const Workspace<Partial> work(memory, job.rows);
  const bool weighted = job.weight != nullptr, added = job.options.reduction != Reduction::none;
  // With no rows the variants that add to -0 would give that.
  if (job.rows == 0) variant = RowsVariant::exact;
  clear_on(stream, work.room, sizeof(Room));
  Room* const room = work.room;
  auto* const sums = reinterpret_cast<Partial*>(room->sums);
  EntropyOf<T> of = entropy_of<T>(job);
  of.loss = work.loss;
  of.row_weight = weighted ? work.row_weight : nullptr;
  of.none = added ? nullptr : of.result;
  of.counted = &room->counted;
  of.first_bad = first_bad;
  of.aligned = aligned_rows<T>(job.columns, of.x, of.weight);
  const int most_blocks = most_blocks_of(job.blocks);
  by_row_length<T>(job.columns, [&](auto threads) {
    constexpr int kThreads = threads;
    if (job.rows > 0)
      NDP_LAUNCH((entropy_rows<T, kThreads>), grid_of(job.rows, most_blocks), kThreads, stream, of);
  });
  const bool exact = variant == RowsVariant::exact;
  if (added && job.rows > 0) {
    if (variant == RowsVariant::atomic) {
      NDP_LAUNCH((start_sums<Partial>), 1, kFoldThreads, stream, sums, 2);
      NDP_LAUNCH((entropy_atomic<Partial>),
                 grid_of(parts_of(job.rows, kLongRow * kAtomicRows), most_blocks), kLongRow, stream,
                 of.loss, of.row_weight, job.rows, sums);
    } else if (exact) {
      const unsigned grid = grid_of(parts_of(job.rows, kLongRow * kExactVisit), most_blocks);
      NDP_LAUNCH((entropy_exact<Partial>), grid, kLongRow, stream, of.loss, job.rows,
                 &room->totals[0]);
      if (weighted)
        NDP_LAUNCH((entropy_exact<Partial>), grid, kLongRow, stream, of.row_weight, job.rows,
                   &room->totals[1]);
    } else {
      sum(sum_of(job, variant, of.loss, sums), work.for_sum, stream);
      if (weighted) sum(sum_of(job, variant, of.row_weight, sums + 1), work.for_sum, stream);
    }
  }
  NDP_LAUNCH((entropy_finish<T>), 1, 1, stream, sums, exact ? room->totals : nullptr,
             &room->counted, job.rows, weighted, job.options.reduction, of.result,
             job.weights != nullptr ? job.weights : &room->weights);
}

}  // namespace

void softmax(const DeviceSoftmax& job, Stream stream) {
  by_row_dtype(job.dtype, [&](auto of) {
    using T = decltype(of);
    if (job.rows == 0 || job.columns == 0) return;
    by_row_length<T>(job.columns, [&](auto threads) {
      constexpr int kThreads = threads;
      NDP_LAUNCH((softmax_forward<T, kThreads>), grid_of(job.rows, most_blocks_of(job.blocks)),
                 kThreads, stream, rows_of<T>(job));
    });
  });
}

void softmax_backward(const DeviceSoftmax& job, Stream stream) {
  by_row_dtype(job.dtype, [&](auto of) {
    using T = decltype(of);
    if (job.rows == 0 || job.columns == 0) return;
    by_row_length<T>(job.columns, [&](auto threads) {
      constexpr int kThreads = threads;
      NDP_LAUNCH((softmax_backward_rows<T, kThreads>),
                 grid_of(job.rows, most_blocks_of(job.blocks)), kThreads, stream, rows_of<T>(job));
    });
  });
}

int64_t cross_entropy_workspace(const DeviceEntropy& job, RowsVariant variant) {
  const bool by_sum = variant == RowsVariant::two_pass || variant == RowsVariant::fixed_order;
  const auto bytes = [&](auto of) {
    using Partial = decltype(of);
    const int64_t own = Workspace<Partial>::bytes(job.rows);
    if (!by_sum || job.rows == 0) return own;
    return own + sum_workspace(sum_of<Partial>(job, variant, nullptr, nullptr));
  };
  return job.dtype == Dtype::float64 ? bytes(double{}) : bytes(float{});
}

void cross_entropy(const DeviceEntropy& job, RowsVariant variant, int64_t* first_bad,
                   void* workspace, Stream stream) {
  by_row_dtype(job.dtype, [&](auto of) {
    entropy<decltype(of)>(job, variant, first_bad, workspace, stream);
  });
}

void cross_entropy_backward(const DeviceEntropy& job, Stream stream) {
  by_row_dtype(job.dtype, [&](auto type) {
    using T = decltype(type);
    if (job.rows == 0 || job.columns == 0) return;
    EntropyOf<T> of = entropy_of<T>(job);
    of.aligned = aligned_rows<T>(job.columns, of.x, of.weight, of.result);
    by_row_length<T>(job.columns, [&](auto threads) {
      constexpr int kThreads = threads;
      NDP_LAUNCH((entropy_backward<T, kThreads>), grid_of(job.rows, most_blocks_of(job.blocks)),
                 kThreads, stream, of);
    });
  });
}

}  // namespace ndp
