// Which kernel runs, on how many threads, and how their results come together.
#include "sum.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <thread>
#include <vector>

#include "float_mode.hpp"
#include "inexact.hpp"
#include "isa.hpp"
#include "levels.hpp"
#include "parallel.hpp"

namespace ndp {

#define NDP_DECLARE(level)             \
  namespace level {                    \
  SumKernels sum_kernels(Dtype dtype); \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

// What a worker of `atomic` adds at a time, less than a chunk, and the least it is started for.
constexpr int64_t kAtomicBlock = 1024;
static_assert(kAtomicBlock <= kSumChunk);
constexpr int64_t kAtomicBlocksPerWorker = 16;

struct Job {
  Dtype dtype;
  SumKernels kernels;
  const char* x;
  int64_t n;
  int threads;

  int64_t bytes() const { return element_bytes(dtype); }
  const void* at(int64_t element) const { return x + element * bytes(); }
  int64_t piece() const { return kPieceBytes / bytes(); }
  int workers(int64_t tasks) const {
    return static_cast<int>(std::clamp<int64_t>(tasks, 1, threads));
  }
};

SumKernels kernels_of(Isa isa, Dtype dtype) {
  switch (isa) {
#define NDP_CASE(level) \
  case Isa::level:      \
    return level::sum_kernels(dtype);
    NDP_EACH_LEVEL(NDP_CASE)
#undef NDP_CASE
    default:
      return portable::sum_kernels(dtype);
  }
}

const Format& format_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return kFormat64;
    case Dtype::float32:
      return kFormat32;
    case Dtype::bfloat16:
      return kFormatBf16;
    case Dtype::float16:
      return kFormat16;
    default:
      throw std::invalid_argument("sum takes float64, float32, bfloat16 and float16");
  }
}

// body(worker, first, count) for every piece of [0, n); workers take pieces as they come free.
// Pieces are whole numbers of chunks and blocks, so that none ends early but the last.
template <class Body>
void each_piece(const Job& job, int workers, const Body& body) {
  static_assert(kPieceBytes / 8 % (kRuns * kSumChunk) == 0);
  static_assert(kPieceBytes / 8 % kExactBlock == 0 && kPieceBytes / 8 % kBinnedBlock == 0);
  const int64_t piece = job.piece();
  std::atomic<int64_t> next{0};
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    for (;;) {
      const int64_t first = next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= job.n) return;
      body(worker, first, std::min(piece, job.n - first));
    }
  });
}

bool all_negative_zero(const Job& job) {
  const uint64_t zero = format_of(job.dtype).sign;
  for (int64_t i = 0; i < job.n; ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, job.at(i), job.bytes());  // little-endian, like all that is built for
    if (bits != zero) return false;
  }
  return job.n > 0;
}

uint64_t rounded(const Job& job, Superacc& acc) {
  const Format& format = format_of(job.dtype);
  const uint64_t bits = round_to(acc, format, false);
  return bits == 0 && all_negative_zero(job) ? format.sign : bits;
}

// A plain floating-point result, brought to the input's format by the same rounding.
uint64_t rounded(const Job& job, double result) {
  Superacc acc;
  clear(acc);
  make_room(acc, 1);
  deposit(acc, result);
  return round_to(acc, format_of(job.dtype), job.n > 0 && std::signbit(result));
}

template <class Partial>
uint64_t sum_atomic(const Job& job) {
  const int64_t blocks = (job.n + kAtomicBlock - 1) / kAtomicBlock;
  const int workers = job.workers(blocks / kAtomicBlocksPerWorker);
  alignas(std::atomic_ref<Partial>::required_alignment) Partial total = -Partial{0};
  std::atomic<int> waiting{workers};
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    // Start together, as the blocks of a GPU do: else the first could be done before the last came.
    // Not for longer than starting a thread takes: the last may be waiting for this thread to end.
    --waiting;
    const auto patience = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
    while (waiting.load() > 0 && std::chrono::steady_clock::now() < patience)
      std::this_thread::yield();
    std::atomic_ref<Partial> shared(total);
    // Who comes first decides what is added first: there is no order but that of arrival.
    const int64_t end = blocks * (worker + 1) / workers;
    for (int64_t block = blocks * worker / workers; block < end; ++block) {
      const int64_t first = block * kAtomicBlock;
      Partial partial;
      job.kernels.chunks(job.at(first), std::min(kAtomicBlock, job.n - first), &partial);
      shared.fetch_add(partial, std::memory_order_relaxed);
    }
  });
  return rounded(job, total);
}

template <class Partial>
uint64_t sum_fixed_order(const Job& job) {
  const int64_t chunks = (job.n + kSumChunk - 1) / kSumChunk;
  std::vector<Partial> partials(std::max<int64_t>(chunks, 1));
  const int workers = job.workers(job.n / job.piece());
  each_piece(job, workers, [&](int, int64_t first, int64_t count) {
    job.kernels.chunks(job.at(first), count, &partials[first / kSumChunk]);
  });
  const DefaultFloatMode mode;
  // Neighbours are added in rounds; the last of an odd number waits for the next round.
  for (int64_t left = chunks; left > 1; left = (left + 1) / 2) {
    for (int64_t i = 0; i < left / 2; ++i) partials[i] = partials[2 * i] + partials[2 * i + 1];
    if (left % 2 != 0) partials[left / 2] = partials[left - 1];
  }
  return rounded(job, partials[0]);
}

uint64_t sum_binned(const Job& job) {
  const int workers = job.workers(job.n / job.piece());
  const int bins = job.dtype == Dtype::float64 ? kBins64 : kBins32;
  std::vector<Binned> sums(workers);
  for (Binned& sum : sums) clear(sum);
  each_piece(job, workers, [&](int worker, int64_t first, int64_t count) {
    job.kernels.binned(job.at(first), count, sums[worker]);
  });
  for (int worker = 1; worker < workers; ++worker) merge(sums[0], sums[worker], bins);
  Superacc acc;
  to_superacc(sums[0], bins, acc);
  return rounded(job, acc);
}

uint64_t sum_exact(const Job& job) {
  const int workers = job.workers(job.n / job.piece());
  const int base_level = job.dtype != Dtype::float64 && inexact_is_kept() ? 0 : 1;
  std::vector<ExactSum> sums(workers);
  for (ExactSum& sum : sums) {
    clear(sum.acc);
    sum.base_level = sum.level = base_level;
    sum.since_base = sum.exponent = 0;
  }
  each_piece(job, workers, [&](int worker, int64_t first, int64_t count) {
    job.kernels.exact(job.at(first), count, sums[worker]);
  });
  for (int worker = 1; worker < workers; ++worker) merge(sums[0].acc, sums[worker].acc);
  return rounded(job, sums[0].acc);
}

uint64_t sum_bits(const Job& job, SumVariant variant) {
  const bool wide = job.dtype == Dtype::float64;
  switch (variant) {
    case SumVariant::atomic:
      return wide ? sum_atomic<double>(job) : sum_atomic<float>(job);
    case SumVariant::fixed_order:
      return wide ? sum_fixed_order<double>(job) : sum_fixed_order<float>(job);
    case SumVariant::binned:
      return sum_binned(job);
    default:
      return sum_exact(job);
  }
}

}  // namespace

SumVariant sum_variant(const std::string& name) {
  if (name == "atomic") return SumVariant::atomic;
  if (name == "fixed_order") return SumVariant::fixed_order;
  if (name == "binned") return SumVariant::binned;
  if (name == "exact") return SumVariant::exact;
  throw std::invalid_argument("sum has no variant " + name);
}

void sum(Dtype dtype, SumVariant variant, const void* x, int64_t n, int threads,
         const std::string& isa, void* result) {
  format_of(dtype);
  const Job job{dtype, kernels_of(choose_isa(isa), dtype), static_cast<const char*>(x), n, threads};
  const uint64_t bits = sum_bits(job, variant);
  std::memcpy(result, &bits, job.bytes());
}

}  // namespace ndp
