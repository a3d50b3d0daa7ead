// The variants of `sum` on one sequence of elements, and how their results come together.
#include "sum.hpp"

#include <stdexcept>

#include "inexact.hpp"
#include "levels.hpp"
#include "sum_job.hpp"

namespace ndp {

NDP_KERNELS(SumKernels, sum_kernels)
NDP_KERNELS(BaselineKernels, baseline_kernels)
NDP_KERNELS(ColumnKernels, column_kernels)

AllSumKernels all_sum_kernels(Isa isa, Dtype dtype) {
  return {sum_kernels(isa, dtype), baseline_kernels(isa, dtype), column_kernels(isa, dtype)};
}

bool all_negative_zero(const Job& job) {
  const int64_t bytes = job.bytes();
  const int64_t piece = std::min<int64_t>(job.n, kSumLanes);  // mostly the first element decides
  const auto buffer = job.buffer(piece);
  for (int64_t first = 0; first < job.n; first += piece) {
    const int64_t count = std::min(piece, job.n - first);
    const char* x = static_cast<const char*>(job.read(first, count, buffer.get()));
    for (int64_t i = 0; i < count; ++i) {
      uint64_t bits = 0;
      std::memcpy(&bits, x + i * bytes, bytes);  // little-endian, like all that is built for
      if (bits != job.format->sign) return false;
    }
  }
  return job.n > 0;
}

uint64_t finish(const Job& job, Superacc& acc) {
  const Format& format = *job.format;
  const uint64_t bits = job.task.mean ? round_quotient(acc, job.n, format, false)
                                      : round_to(acc, format, false);
  return bits == 0 && all_negative_zero(job) ? format.sign : bits;
}

uint64_t finish(const Job& job, double high, double low) {
  const double sum = high + low;
  const bool one_rounding = low == 0 || job.format->precision == kFormat64.precision;
  if (!job.task.mean && one_rounding) {
    const uint64_t bits = round_double(sum, *job.format);
    return bits == 0 && all_negative_zero(job) ? job.format->sign : bits;
  }
  Superacc acc;
  clear(acc);
  make_room(acc, 2);
  deposit(acc, high);
  deposit(acc, low);
  return finish(job, acc);
}

namespace {

// The least that a worker of `atomic` is started for.
constexpr int64_t kAtomicBlocksPerWorker = 16;

template <class Partial>
uint64_t sum_atomic(const Job& job) {
  const int64_t blocks = (job.n + kAtomicBlock - 1) / kAtomicBlock;
  const int workers = workers_for(blocks / kAtomicBlocksPerWorker, job.most_workers);
  alignas(std::atomic_ref<Partial>::required_alignment) Partial total = -Partial{0};
  StartTogether start(workers);
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    const auto buffer = job.buffer(kAtomicBlock);
    start.wait();
    std::atomic_ref<Partial> shared(total);
    // Who comes first decides what is added first: there is no order but that of arrival.
    const int64_t end = blocks * (worker + 1) / workers;
    for (int64_t block = blocks * worker / workers; block < end; ++block) {
      const int64_t first = block * kAtomicBlock;
      const int64_t count = std::min(kAtomicBlock, job.n - first);
      Partial partial;
      job.kernels->rows.chunks(job.read(first, count, buffer.get()), count, &partial);
      shared.fetch_add(partial, std::memory_order_relaxed);
    }
  });
  return finish(job, total);
}

// Every chunk's partial by `kernel`, then rounds of additions.
template <class Partial, class Add>
Partial sum_chunks(const Job& job, void (*kernel)(const void*, int64_t, void*), const Add& add) {
  const int64_t chunks = (job.n + kSumChunk - 1) / kSumChunk;
  if (chunks == 1 && job.gather == nullptr) {
    Partial partial;
    kernel(job.x, job.n, &partial);
    return partial;
  }
  const std::unique_ptr<Partial[]> partials(new Partial[chunks]);
  each_piece(job, job.workers(), [&](int, const void* x, int64_t first, int64_t count) {
    kernel(x, count, &partials[first / kSumChunk]);
  });
  add_in_rounds(chunks, partials.get(), add);
  return partials[0];
}

const auto plus = [](auto a, auto b) { return a + b; };

// One part for each thread, whichever thread adds it up: the threads asked for decide the bits.
template <class Partial>
uint64_t sum_two_pass(const Job& job) {
  const int parts = parts_of(job);
  const std::unique_ptr<Partial[]> partials(new Partial[parts]);
  each_task(parts, job.workers(), [&](int, int64_t which) {
    const int part = static_cast<int>(which);
    Job of_part = job;
    const int64_t first = part_start(job.n, part, parts);
    of_part.n = part_start(job.n, part + 1, parts) - first;
    of_part.most_workers = 1;
    if (job.gather == nullptr)
      of_part.x += first * job.bytes();
    else
      of_part.first += first;
    partials[part] = sum_chunks<Partial>(of_part, job.kernels->rows.chunks, plus);
  });
  add_in_rounds(parts, partials.get(), plus);
  return finish(job, partials[0]);
}

template <class Partial>
uint64_t sum_kahan(const Job& job) {
  const auto total = sum_chunks<Compensated<Partial>>(
      job, job.kernels->baselines.kahan_chunks,
      [](const auto& a, const auto& b) { return add(a, b); });
  const double high = total.sum, low = -static_cast<double>(total.lost);
  // As additions alone leave it: infinite, NaN, or with nothing lost.
  if (high - high != 0 || (low == 0 && !job.task.mean)) return finish(job, high);
  return finish(job, high, low);
}

uint64_t sum_binned(const Job& job) {
  const int workers = job.workers();
  const int bins = job.task.dtype == Dtype::float64 ? kBins64 : kBins32;
  std::vector<Binned> sums(workers);
  for (Binned& sum : sums) clear(sum);
  each_piece(job, workers, [&](int worker, const void* x, int64_t, int64_t count) {
    job.kernels->rows.binned(x, count, sums[worker]);
  });
  for (int worker = 1; worker < workers; ++worker) merge(sums[0], sums[worker], bins);
  Superacc acc;
  to_superacc(sums[0], bins, acc);
  return finish(job, acc);
}

uint64_t sum_exact(const Job& job) {
  if (job.n <= kExactBlock && inexact_is_kept()) {
    const auto buffer = job.buffer(job.n);
    double high, low;
    if (job.kernels->rows.exact_pair(job.read(0, job.n, buffer.get()), job.n, &high, &low))
      return finish(job, high, low);
  }
  const int workers = job.workers();
  const int base_level = job.task.dtype != Dtype::float64 && inexact_is_kept() ? 0 : 1;
  const std::unique_ptr<ExactSum[]> sums(new ExactSum[workers]);
  const std::unique_ptr<ExponentBins[]> bins(new ExponentBins[workers]);
  for (int worker = 0; worker < workers; ++worker) {
    ExactSum& sum = sums[worker];
    clear(sum.acc);
    sum.bins = &bins[worker];
    sum.bins_used = false;
    sum.base_level = sum.level = base_level;
    sum.since_base = sum.exponent = 0;
  }
  each_piece(job, workers, [&](int worker, const void* x, int64_t, int64_t count) {
    job.kernels->rows.exact(x, count, sums[worker]);
  });
  for (int worker = 0; worker < workers; ++worker) {
    if (sums[worker].bins_used) add_bins(bins[worker], sums[worker].acc);
    if (worker != 0) merge(sums[0].acc, sums[worker].acc);
  }
  return finish(job, sums[0].acc);
}

template <class Partial>
uint64_t sum_in(const Job& job) {
  switch (job.task.variant) {
    case SumVariant::atomic:
      return sum_atomic<Partial>(job);
    case SumVariant::two_pass:
      return sum_two_pass<Partial>(job);
    case SumVariant::fixed_order:
      return finish(job, sum_chunks<Partial>(job, job.kernels->rows.chunks, plus));
    case SumVariant::pairwise:
      return finish(job, sum_chunks<Partial>(job, job.kernels->baselines.pairwise_chunks, plus));
    case SumVariant::kahan:
      return sum_kahan<Partial>(job);
    case SumVariant::binned:
      return sum_binned(job);
    default:
      return sum_exact(job);
  }
}

}  // namespace

uint64_t sum_bits(const Job& job) {
  if (job.n == 0) return nothing(job);
  return job.task.dtype == Dtype::float64 ? sum_in<double>(job) : sum_in<float>(job);
}

void sum(const SumTask& task, const void* x, int64_t n, const std::string& isa, void* result) {
  const Format& format = format_of(task.dtype, "sum");
  const AllSumKernels kernels = all_sum_kernels(choose_isa(isa), task.dtype);
  const DefaultFloatMode mode;
  const uint64_t bits = sum_bits({task, &kernels, &format, static_cast<const char*>(x), nullptr, 0,
                                  n, task.threads});
  std::memcpy(result, &bits, element_bytes(task.dtype));
}

}  // namespace ndp
