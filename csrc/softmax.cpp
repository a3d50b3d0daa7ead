// Which kernel runs, on how many threads, and how the losses of rows come together.
#include "softmax.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "exp_log.hpp"
#include "isa.hpp"
#include "levels.hpp"
#include "pages.hpp"
#include "rows.hpp"

namespace ndp {

NDP_KERNELS(SoftmaxKernels, softmax_kernels)

namespace {

// Rows whose losses a worker of `atomic` adds up before it adds them to the shared float.
constexpr int64_t kAtomicRows = 8;
constexpr int kScratchRows = 4;

int64_t padded(int64_t columns) { return (columns + kSumLanes - 1) / kSumLanes * kSumLanes; }

// body(first, count, scratch) for all rows.
template <class Body>
void each_rows(Dtype dtype, int64_t rows, int64_t columns, int threads, const Body& body) {
  if (rows == 0 || columns == 0) return;
  const int64_t piece = rows_at_a_time(columns);
  const int team = row_workers((rows + piece - 1) / piece, rows * columns, threads);
  share_out(rows, piece, team, [&](int, int64_t first, int64_t count) {
    std::vector<double> scratch(kScratchRows * padded(columns) * computed_bytes(dtype) / 8);
    body(first, count, scratch.data());
  });
}

// What is added up: the losses of the rows, or the weights of their targets.
template <class P>
struct Values {
  const P* x;
  int64_t n;

  bool all_negative_zero() const {
    for (int64_t i = 0; i < n; ++i)
      if (x[i] != 0 || !std::signbit(x[i])) return false;
    return n > 0;
  }
  P in_order(int64_t first, int64_t count) const {
    P sum = -P{0};
    for (int64_t i = first; i < first + count; ++i) sum += x[i];
    return sum;
  }
  void exactly(Superacc& acc) const {
    clear(acc);
    make_room(acc, n);
    for (int64_t i = 0; i < n; ++i) deposit(acc, x[i]);
  }
};

uint64_t rounded(Dtype dtype, double x) {
  Superacc acc;
  clear(acc);
  make_room(acc, 1);
  deposit(acc, x);
  return round_to(acc, row_format(dtype), std::signbit(x));
}

double correctly_rounded(Superacc& acc, bool negative_zero) {
  const uint64_t bits = round_to(acc, kFormat64, negative_zero);
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class P>
struct Entropy {
  Dtype dtype;
  EntropyRows job;
  EntropyOptions options;
  SoftmaxKernels kernels;
  int threads;
  std::vector<P> losses, row_weights;  // the second only where there are weights
  int64_t counted;                     // rows that are not ignored

  Values<P> loss_values() const { return {losses.data(), job.rows}; }
  Values<P> weight_values() const { return {row_weights.data(), job.rows}; }
  int workers(int64_t tasks) const {
    return row_workers(tasks, job.rows * job.columns, threads);
  }
  std::vector<P> scratch() const { return std::vector<P>(kScratchRows * padded(job.columns)); }

  void rows() const {
    each_rows(dtype, job.rows, job.columns, threads,
              [&](int64_t first, int64_t count, void* buffer) {
                kernels.entropy(job, first, count, buffer);
              });
  }

  struct Sums {
    P loss, weight;
  };

  Sums atomic() const {
    alignas(std::atomic_ref<P>::required_alignment) P loss = -P{0};
    alignas(std::atomic_ref<P>::required_alignment) P weight = -P{0};
    const int team = workers((job.rows + kAtomicRows - 1) / kAtomicRows);
    StartTogether start(team);
    std::atomic<int64_t> next{0};
    parallel_run(team, [&](int) {
      const DefaultFloatMode mode;
      auto buffer = scratch();
      start.wait();
      for (int64_t first; (first = next.fetch_add(kAtomicRows)) < job.rows;) {
        const int64_t count = std::min(kAtomicRows, job.rows - first);
        kernels.entropy(job, first, count, buffer.data());
        // Who comes first is added first: there is no order but that of arrival.
        std::atomic_ref<P>(loss).fetch_add(loss_values().in_order(first, count));
        if (job.weighted)
          std::atomic_ref<P>(weight).fetch_add(weight_values().in_order(first, count));
      }
    });
    return {loss, weight};
  }

  // As many parts as workers.
  Sums two_pass() const {
    const int team = workers(job.rows);
    std::vector<Sums> parts(team);
    parallel_run(team, [&](int worker) {
      const DefaultFloatMode mode;
      auto buffer = scratch();
      const int64_t first = job.rows * worker / team;
      const int64_t count = job.rows * (worker + 1) / team - first;
      kernels.entropy(job, first, count, buffer.data());
      parts[worker].loss = loss_values().in_order(first, count);
      if (job.weighted) parts[worker].weight = weight_values().in_order(first, count);
    });
    Sums all = parts[0];
    for (int worker = 1; worker < team; ++worker) {
      all.loss += parts[worker].loss;
      all.weight += parts[worker].weight;
    }
    return all;
  }

  Sums fixed_order() const {
    rows();
    Sums all{};
    kernels.sum(losses.data(), job.rows, &all.loss);
    if (job.weighted) kernels.sum(row_weights.data(), job.rows, &all.weight);
    return all;
  }

  // Bits of the dtype; the total weight into `weights`.
  uint64_t exact(double& weights) const {
    rows();
    Superacc sum;
    loss_values().exactly(sum);
    const bool negative_zero = loss_values().all_negative_zero();
    if (job.weighted) {
      Superacc weight;
      weight_values().exactly(weight);
      weights = correctly_rounded(weight, weight_values().all_negative_zero());
    }
    if (options.reduction == Reduction::sum)
      return round_to(sum, row_format(dtype), negative_zero);
    if (job.weighted || counted == 0)
      return rounded(dtype, correctly_rounded(sum, negative_zero) / weights);
    return round_quotient(sum, counted, row_format(dtype), negative_zero);
  }

  uint64_t reduced(RowsVariant variant, double& weights) const {
    if (variant == RowsVariant::exact) return exact(weights);
    const Sums sums = variant == RowsVariant::atomic     ? atomic()
                      : variant == RowsVariant::two_pass ? two_pass()
                                                         : fixed_order();
    if (job.weighted) weights = sums.weight;
    return rounded(dtype, options.reduction == Reduction::sum
                              ? sums.loss
                              : sums.loss / static_cast<P>(weights));
  }
};

template <class P>
std::vector<P> padded_weight(const SoftmaxKernels& kernels, const void* weight, int64_t columns) {
  std::vector<P> row(padded(columns), P{1});
  if (weight != nullptr) kernels.widen(weight, columns, row.data());
  return row;
}

template <class P>
void run_entropy(Dtype dtype, RowsVariant variant, EntropyRows job, const EntropyOptions& options,
                 const SoftmaxKernels& kernels, int threads, void* result, double* weights) {
  const DefaultFloatMode mode;
  const auto weight = padded_weight<P>(kernels, job.weight, job.columns);
  job.weighted = job.weight != nullptr;
  job.weight = weight.data();
  Entropy<P> work{dtype, job, options, kernels, threads, std::vector<P>(job.rows), {}, 0};
  work.job.loss = work.losses.data();
  if (job.weighted) work.row_weights.resize(job.rows);
  for (int64_t row = 0; row < job.rows; ++row) {
    if (job.target[row] == options.ignored) continue;
    ++work.counted;
    if (job.weighted) work.row_weights[row] = weight[job.target[row]];
  }
  *weights = static_cast<double>(work.counted);
  if (options.reduction == Reduction::none) {
    work.rows();
    return kernels.narrow(work.losses.data(), job.rows, result);
  }
  // With no rows the variants that add to -0.0 would give that.
  const uint64_t bits = work.reduced(job.rows == 0 ? RowsVariant::exact : variant, *weights);
  std::memcpy(result, &bits, element_bytes(dtype));
}

template <class P>
void run_entropy_backward(Dtype dtype, EntropyRows job, const EntropyOptions& options,
                          const SoftmaxKernels& kernels, const void* gradient, double weights,
                          int threads) {
  const DefaultFloatMode mode;
  const auto weight = padded_weight<P>(kernels, job.weight, job.columns);
  P all = static_cast<P>(job.columns);
  if (job.weight != nullptr) kernels.sum(weight.data(), job.columns, &all);
  job.weight = weight.data();
  job.weights = static_cast<double>(all);
  std::vector<P> outer(job.rows);
  if (options.reduction == Reduction::none) {
    kernels.widen(gradient, job.rows, outer.data());
  } else {
    P one;
    kernels.widen(gradient, 1, &one);
    if (options.reduction == Reduction::mean)
      one = static_cast<P>(static_cast<double>(one) / weights);
    std::fill(outer.begin(), outer.end(), one);
  }
  job.gradient = outer.data();
  each_rows(dtype, job.rows, job.columns, threads, [&](int64_t first, int64_t count, void* buffer) {
    kernels.entropy_backward(job, first, count, buffer);
  });
}

EntropyRows entropy_job(Dtype dtype, const void* x, const int64_t* target, int64_t rows,
                        int64_t columns, const void* weight, const EntropyOptions& options,
                        const void* statistics, void* result) {
  char* const most = static_cast<char*>(const_cast<void*>(statistics));
  EntropyRows job{};
  job.rows = rows;
  job.columns = columns;
  job.x = x;
  job.target = target;
  job.weight = weight;
  job.ignored = options.ignored;
  job.smoothing = options.smoothing;
  job.most = most;
  job.total = most + rows * computed_bytes(dtype);
  job.result = result;
  return job;
}

}  // namespace

void softmax(Dtype dtype, bool log, const void* x, int64_t rows, int64_t columns, int threads,
             const std::string& isa, void* y) {
  row_format(dtype);
  const SoftmaxKernels kernels = softmax_kernels(choose_isa(isa), dtype);
  const SoftmaxRows job{rows, columns, x, nullptr, y};
  want_large_pages(y, rows * columns * element_bytes(dtype));
  each_rows(dtype, rows, columns, threads, [&](int64_t first, int64_t count, void* scratch) {
    (log ? kernels.log_softmax : kernels.softmax)(job, first, count, scratch);
  });
}

void softmax_backward(Dtype dtype, bool log, const void* gradient, const void* y, int64_t rows,
                      int64_t columns, int threads, const std::string& isa, void* dx) {
  row_format(dtype);
  const SoftmaxKernels kernels = softmax_kernels(choose_isa(isa), dtype);
  const SoftmaxRows job{rows, columns, y, gradient, dx};
  want_large_pages(dx, rows * columns * element_bytes(dtype));
  each_rows(dtype, rows, columns, threads, [&](int64_t first, int64_t count, void* scratch) {
    (log ? kernels.log_softmax_backward : kernels.softmax_backward)(job, first, count, scratch);
  });
}

void cross_entropy(Dtype dtype, RowsVariant variant, const void* x, const int64_t* target,
                   int64_t rows, int64_t columns, const void* weight, const EntropyOptions& options,
                   int threads, const std::string& isa, void* result, void* statistics,
                   double* weights) {
  row_format(dtype);
  const SoftmaxKernels kernels = softmax_kernels(choose_isa(isa), dtype);
  for (int64_t row = 0; row < rows; ++row)
    if (target[row] != options.ignored && (target[row] < 0 || target[row] >= columns))
      throw std::out_of_range("target " + std::to_string(target[row]) + " at position " +
                              std::to_string(row) + " is not one of the " +
                              std::to_string(columns) + " classes");
  const EntropyRows job =
      entropy_job(dtype, x, target, rows, columns, weight, options, statistics, nullptr);
  if (dtype == Dtype::float64)
    run_entropy<double>(dtype, variant, job, options, kernels, threads, result, weights);
  else
    run_entropy<float>(dtype, variant, job, options, kernels, threads, result, weights);
}

void cross_entropy_backward(Dtype dtype, const void* gradient, const void* x, const int64_t* target,
                            int64_t rows, int64_t columns, const void* weight,
                            const EntropyOptions& options, const void* statistics, double weights,
                            int threads, const std::string& isa, void* dx) {
  row_format(dtype);
  const SoftmaxKernels kernels = softmax_kernels(choose_isa(isa), dtype);
  const EntropyRows job =
      entropy_job(dtype, x, target, rows, columns, weight, options, statistics, dx);
  if (dtype == Dtype::float64)
    run_entropy_backward<double>(dtype, job, options, kernels, gradient, weights, threads);
  else
    run_entropy_backward<float>(dtype, job, options, kernels, gradient, weights, threads);
}

void exp_all(Dtype dtype, const void* x, int64_t n, const std::string& isa, void* result) {
  const DefaultFloatMode mode;
  softmax_kernels(choose_isa(isa), dtype).exp(x, n, result);
}

void log_all(const double* x, int64_t n, double* result) {
  const DefaultFloatMode mode;
  for (int64_t i = 0; i < n; ++i) result[i] = log_of(x[i]);
}

}  // namespace ndp
