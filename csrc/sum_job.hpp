// One sum on its way, shared by the files that make up `sum`: which elements are added, by which
// kernels, on how many threads, and how the result is rounded.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "formats.hpp"
#include "gather.hpp"
#include "inexact.hpp"
#include "isa.hpp"
#include "sum.hpp"
#include "workers.hpp"

namespace ndp {

struct AllSumKernels {
  SumKernels rows;
  BaselineKernels baselines;
  ColumnKernels columns;
};
AllSumKernels all_sum_kernels(Isa isa, Dtype dtype);

constexpr int64_t kGatherBytes = 256 << 10;  // what is copied together at a time
// Below this for each thread, a further one does not pay.
constexpr int64_t kWorkerBytes = 256 << 10;

// The threads that `bytes` are work for.
inline int sum_workers(int64_t bytes, int threads) {
  return workers_for(bytes / kWorkerBytes, threads);
}

struct Job {
  SumTask task;
  const AllSumKernels* kernels;
  const Format* format;
  // The n elements: at x one after the other, or, where they have to be gathered, from the place
  // `first` of `gather`.
  const char* x;
  const Gather* gather;
  int64_t first;
  int64_t n;
  int most_workers;  // at most task.threads

  int64_t bytes() const { return element_bytes(task.dtype); }
  int workers() const { return sum_workers(n * bytes(), most_workers); }

  // `count` elements from `start` on, one after the other: in place, or in the buffer.
  const void* read(int64_t start, int64_t count, unsigned char* buffer) const {
    if (gather == nullptr) return x + start * bytes();
    gather->copy(first + start, count, buffer);
    return buffer;
  }

  std::unique_ptr<unsigned char[]> buffer(int64_t elements) const {
    if (gather == nullptr) return nullptr;
    return std::unique_ptr<unsigned char[]>(new unsigned char[elements * bytes()]);
  }

  // What a worker takes at a time: whole numbers of chunks and blocks, so that none ends early.
  int64_t piece() const {
    static_assert(kGatherBytes / 8 % (kRuns * kSumChunk) == 0);
    static_assert(kGatherBytes / 8 % kExactBlock == 0 && kGatherBytes / 8 % kBinnedBlock == 0);
    int64_t size = gather == nullptr ? kPieceBytes : kGatherBytes;
    while (size > kGatherBytes && size * most_workers * 2 > n * bytes()) size /= 2;
    return size / bytes();
  }
};

// body(worker, x, first, count) for every piece of the elements; workers take them as they come
// free.
template <class Body>
void each_piece(const Job& job, int workers, const Body& body) {
  const int64_t piece = job.piece();
  share_out_to(job.n, piece, workers, [&, piece](int worker) {
    return [&, worker, buffer = job.buffer(std::min(piece, job.n))](int64_t first, int64_t count) {
      body(worker, job.read(first, count, buffer.get()), first, count);
    };
  });
}

bool all_negative_zero(const Job& job);

// The result's bits from a floating-point sum: divided, in fp64, for a mean, and rounded once.
inline uint64_t finish(const Job& job, double sum) {
  const double result = job.task.mean ? sum / static_cast<double>(job.n) : sum;
  if (job.task.dtype != Dtype::float32 || result != result) return round_double(result, *job.format);
  const float narrow = static_cast<float>(result);
  uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  return bits;
}

// From a fixed-point sum: the quotient, for a mean, is rounded once.
uint64_t finish(const Job& job, Superacc& acc);

// The sum of high and low, which is exact, rounded once.
uint64_t finish(const Job& job, double high, double low);

// A sum of nothing: +0, and NaN for a mean.
inline uint64_t nothing(const Job& job) { return job.task.mean ? job.format->quiet_nan : 0; }

// Where part i of n elements starts.
inline int64_t part_start(int64_t n, int part, int parts) {
  return n / parts * part + n % parts * part / parts;
}

// The parts of n elements that `two_pass` adds up apart.
inline int parts_of(const Job& job) {
  const int64_t chunks = (job.n + kSumChunk - 1) / kSumChunk;
  return workers_for(chunks, job.task.threads);
}

// What a worker of `atomic` adds at a time, less than a chunk.
constexpr int64_t kAtomicBlock = 1024;
static_assert(kAtomicBlock <= kSumChunk);

// The result's bits. Uses up to job.most_workers threads; called in the default mode.
uint64_t sum_bits(const Job& job);

// Whether columns are added as such by this variant; the others gather them.
bool has_columns(SumVariant variant);

// The sums of `columns` neighbouring columns of job.n rows, as sum_bits gives them: that of column i
// goes to results + i * step. x is what is read; job.gather, with column i from the place
// job.first + i * job.n on, is to look at single elements.
void sum_columns(const Job& job, const Rows& x, int64_t columns, char* results, int64_t step);

}  // namespace ndp
