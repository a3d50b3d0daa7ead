// Which kernel runs, on which rows, and how the sums over rows come together.
#include "layer_norm.hpp"

#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "isa.hpp"
#include "levels.hpp"
#include "pages.hpp"
#include "rows.hpp"

namespace ndp {

#define NDP_DECLARE(level)                            \
  namespace level {                                   \
  NormKernels norm_kernels(Dtype dtype, bool centred); \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

// Rows whose terms a worker of `atomic` adds up before it adds them to the shared floats.
constexpr int64_t kAtomicRows = 8;
constexpr int kScratchRows = 4;

// A gradient of so many bytes does not stay in cache, with the two tensors it is made from, until
// somebody reads it. Stored past the caches it need not be read from memory first: of four
// transfers, x, dy and dx twice, that leaves three. (Measured with one more pass over the gradient: 0.78 of the
// time for 8 MiB, 1.2 for 4 MiB.)
constexpr int64_t kPastBytes = int64_t{8} << 20;
constexpr int64_t kLine = 64;

NormKernels kernels_of(Isa isa, Dtype dtype, bool centred) {
  switch (isa) {
#define NDP_CASE(level) \
  case Isa::level:      \
    return level::norm_kernels(dtype, centred);
    NDP_EACH_LEVEL(NDP_CASE)
#undef NDP_CASE
    default:
      return portable::norm_kernels(dtype, centred);
  }
}

int64_t padded(int64_t columns) { return (columns + kSumLanes - 1) / kSumLanes * kSumLanes; }

// A padded row of P: the elements, or `filling` everywhere.
template <class P>
std::vector<P> parameter(const NormKernels& kernels, const void* from, int64_t columns, P filling) {
  std::vector<P> row(padded(columns), filling);
  if (from != nullptr) kernels.widen(from, columns, row.data());
  return row;
}

template <class P>
struct Backward {
  NormRows job;
  NormKernels kernels;
  int threads;
  P *dgamma, *dbeta;  // padded sums

  int64_t wide() const { return padded(job.columns); }
  int64_t elements() const { return job.rows * job.columns; }
  int workers(int64_t tasks) const { return row_workers(tasks, elements(), threads); }
  std::vector<P> scratch() const { return std::vector<P>(kScratchRows * wide()); }

  // The gradient of x alone.
  void rows_only() const {
    const int64_t piece = rows_at_a_time(job.columns);
    share_out(job.rows, piece, workers((job.rows + piece - 1) / piece),
              [&](int, int64_t first, int64_t count) {
                auto buffer = scratch();
                kernels.backward(job, first, count, buffer.data(), nullptr, nullptr);
              });
  }

  void atomic() const {
    const int64_t pieces = (job.rows + kAtomicRows - 1) / kAtomicRows;
    const int team = workers(pieces);
    StartTogether start(team);
    std::atomic<int64_t> next{0};
    parallel_run(team, [&](int) {
      const DefaultFloatMode mode;
      auto buffer = scratch();
      std::vector<P> gamma(wide()), beta(wide());
      start.wait();
      for (int64_t first; (first = next.fetch_add(kAtomicRows)) < job.rows;) {
        std::fill(gamma.begin(), gamma.end(), -P{0});
        std::fill(beta.begin(), beta.end(), -P{0});
        kernels.backward(job, first, std::min(kAtomicRows, job.rows - first), buffer.data(),
                         gamma.data(), beta.data());
        // Who comes first is added first: there is no order but that of arrival.
        for (int64_t j = 0; j < job.columns; ++j) {
          std::atomic_ref<P>(dgamma[j]).fetch_add(gamma[j], std::memory_order_relaxed);
          if (job.centred)
            std::atomic_ref<P>(dbeta[j]).fetch_add(beta[j], std::memory_order_relaxed);
        }
      }
    });
  }

  // As many parts as workers.
  void two_pass() const {
    const int team = workers(job.rows);
    std::vector<P> parts(2 * team * wide(), -P{0});
    parallel_run(team, [&](int worker) {
      const DefaultFloatMode mode;
      auto buffer = scratch();
      const int64_t first = job.rows * worker / team;
      const int64_t count = job.rows * (worker + 1) / team - first;
      P* gamma = parts.data() + 2 * worker * wide();
      kernels.backward(job, first, count, buffer.data(), gamma, gamma + wide());
    });
    const DefaultFloatMode mode;
    for (int worker = 0; worker < team; ++worker)
      for (int64_t j = 0; j < job.columns; ++j) {
        dgamma[j] += parts[2 * worker * wide() + j];
        dbeta[j] += parts[(2 * worker + 1) * wide() + j];
      }
  }

  // Chunks of kNormChunk rows; each has its sums. A worker folds those of `group` neighbours while
  // they are at hand: a power of two, so that it is a part of the tree over all of them.
  void fixed_order() const {
    const int64_t chunks = (job.rows + kNormChunk - 1) / kNormChunk, apart = 2 * wide();
    const int64_t group = std::bit_floor<uint64_t>(std::clamp<int64_t>(chunks / threads / 4, 1, 8));
    const int64_t count = (chunks + group - 1) / group;
    // Filled by the workers that use it.
    const auto parts = std::make_unique_for_overwrite<P[]>(count * apart);
    P* const part = parts.get();
    share_out(count, 1, workers(count), [&](int, int64_t task, int64_t) {
      auto buffer = scratch();
      const int64_t first = task * group, mine = std::min(group, chunks - first);
      std::vector<P> sums(mine * apart, -P{0});
      for (int64_t i = 0; i < mine; ++i) {
        const int64_t row = (first + i) * kNormChunk;
        P* const gamma = sums.data() + i * apart;
        kernels.backward(job, row, std::min(kNormChunk, job.rows - row), buffer.data(), gamma,
                         gamma + wide());
      }
      kernels.fold(sums.data(), mine, apart, 0, apart, part + task * apart);
    });
    std::vector<P> sums(apart);
    const int team = row_workers(apart / kSumLanes, count * apart, threads);
    share_out(apart, (apart / kSumLanes + team - 1) / team * kSumLanes, team,
              [&](int, int64_t first, int64_t columns) {
                kernels.fold(part, count, apart, first, columns, sums.data());
              });
    std::copy_n(sums.data(), wide(), dgamma);
    std::copy_n(sums.data() + wide(), wide(), dbeta);
  }
};

void finish(Dtype dtype, ColumnSum& sum, int64_t j, void* to) {
  const uint64_t bits = round_to(sum.acc, row_format(dtype), !sum.other);
  std::memcpy(static_cast<char*>(to) + j * element_bytes(dtype), &bits, element_bytes(dtype));
}

// The columns in turn; the terms are computed a second time.
void exact_sums(Dtype dtype, const NormRows& job, const NormKernels& kernels, int threads,
                void* dgamma, void* dbeta) {
  const int64_t tiles = (job.columns + kNormExactColumns - 1) / kNormExactColumns;
  share_out(job.columns, kNormExactColumns, row_workers(tiles, job.rows * job.columns, threads),
            [&](int, int64_t first, int64_t columns) {
              std::vector<ColumnSum> sums(2 * columns);
              for (ColumnSum& sum : sums) clear(sum.acc);
              ColumnSum* const beta = sums.data() + columns;
              kernels.exact(job, first, columns, sums.data(), beta);
              for (int64_t j = 0; j < columns; ++j) {
                if (dgamma != nullptr) finish(dtype, sums[j], first + j, dgamma);
                if (dbeta != nullptr) finish(dtype, beta[j], first + j, dbeta);
              }
            });
}

template <class P>
void run_backward(Dtype dtype, NormRows job, RowsVariant variant, const NormKernels& kernels,
                  int threads, void* dgamma, void* dbeta) {
  const auto factor = parameter<P>(kernels, job.weight, job.columns, 1);
  job.weight = factor.data();
  const bool parameters = dgamma != nullptr || dbeta != nullptr;
  const bool empty = job.rows == 0 || job.columns == 0;
  std::vector<P> gamma(parameters ? padded(job.columns) : 0, empty ? P{0} : -P{0});
  std::vector<P> beta = gamma;
  const Backward<P> work{job, kernels, threads, gamma.data(), beta.data()};
  if (!empty) {
    if (!parameters || variant == RowsVariant::exact)
      work.rows_only();
    else if (variant == RowsVariant::atomic)
      work.atomic();
    else if (variant == RowsVariant::two_pass)
      work.two_pass();
    else
      work.fixed_order();
    if (parameters && variant == RowsVariant::exact)
      return exact_sums(dtype, job, kernels, threads, dgamma, dbeta);
  }
  const DefaultFloatMode mode;
  for (P& sum : gamma) sum = sum == sum ? sum : std::numeric_limits<P>::quiet_NaN();
  for (P& sum : beta) sum = sum == sum ? sum : std::numeric_limits<P>::quiet_NaN();
  if (dgamma != nullptr) kernels.narrow(gamma.data(), job.columns, dgamma);
  if (dbeta != nullptr) kernels.narrow(beta.data(), job.columns, dbeta);
}

template <class P>
void run_forward(NormRows job, const NormKernels& kernels, int threads) {
  const auto factor = parameter<P>(kernels, job.weight, job.columns, 1);
  const auto shift = parameter<P>(kernels, job.bias, job.columns, -P{0});
  job.weight = factor.data();
  job.bias = shift.data();
  const int64_t piece = rows_at_a_time(job.columns);
  const int team = row_workers((job.rows + piece - 1) / piece, job.rows * job.columns, threads);
  share_out(job.rows, piece, team, [&](int, int64_t first, int64_t count) {
    std::vector<P> buffer(kScratchRows * padded(job.columns));
    kernels.forward(job, first, count, buffer.data());
  });
}

void* second_half(Dtype dtype, const void* statistics, int64_t rows) {
  if (statistics == nullptr) return nullptr;
  return static_cast<char*>(const_cast<void*>(statistics)) + rows * computed_bytes(dtype);
}

// Whether every row of the gradient starts a cache line and all of it is large enough. Rows of 16
// bits are rounded on their way, by a loop of its own.
bool past_the_caches(Dtype dtype, const void* dx, int64_t rows, int64_t columns) {
  const int64_t row = columns * element_bytes(dtype);
  return element_bytes(dtype) == computed_bytes(dtype) && rows * row >= kPastBytes &&
         row % kLine == 0 && reinterpret_cast<uintptr_t>(dx) % kLine == 0;
}

}  // namespace

void layer_norm(Dtype dtype, bool centred, const void* x, int64_t rows, int64_t columns,
                const void* weight, const void* bias, double eps, int threads,
                const std::string& isa, void* y, void* statistics) {
  row_format(dtype);
  const NormKernels kernels = kernels_of(choose_isa(isa), dtype, centred);
  if (rows == 0 || columns == 0) return;
  const NormRows job{centred, rows,       columns,
                     eps,     x,          nullptr,
                     weight,  bias,       statistics,
                     second_half(dtype, statistics, rows), y, false};
  want_large_pages(y, rows * columns * element_bytes(dtype));
  if (dtype == Dtype::float64)
    run_forward<double>(job, kernels, threads);
  else
    run_forward<float>(job, kernels, threads);
}

void layer_norm_backward(Dtype dtype, bool centred, RowsVariant variant, const void* gradient,
                         const void* x, int64_t rows, int64_t columns, const void* weight,
                         const void* statistics, int threads, const std::string& isa, void* dx,
                         void* dgamma, void* dbeta) {
  row_format(dtype);
  const NormKernels kernels = kernels_of(choose_isa(isa), dtype, centred);
  const NormRows job{centred, rows,     columns,
                     0.0,     x,        gradient,
                     weight,  nullptr,  const_cast<void*>(statistics),
                     second_half(dtype, statistics, rows), dx,
                     past_the_caches(dtype, dx, rows, columns)};
  want_large_pages(dx, rows * columns * element_bytes(dtype));
  if (dtype == Dtype::float64)
    run_backward<double>(dtype, job, variant, kernels, threads, dgamma, dbeta);
  else
    run_backward<float>(dtype, job, variant, kernels, threads, dgamma, dbeta);
}

}  // namespace ndp
