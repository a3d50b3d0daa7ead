// What the drivers of row-wise kernels share: work for threads, and the format of a dtype.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "dtypes.hpp"
#include "float_mode.hpp"
#include "parallel.hpp"
#include "rows_variant.hpp"
#include "superacc.hpp"

namespace ndp {

// Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16.
inline const Format& row_format(Dtype dtype) {
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
      throw std::invalid_argument("rows are float64, float32, bfloat16 or float16");
  }
}

// Bytes of an element of the type that rows of `dtype` are computed in.
inline int64_t computed_bytes(Dtype dtype) { return dtype == Dtype::float64 ? 8 : 4; }

// Elements that a worker is started for, at the least.
constexpr int64_t kElementsPerWorker = int64_t{1} << 15;

// Workers for so many tasks and elements.
inline int row_workers(int64_t tasks, int64_t elements, int threads) {
  const int64_t worthwhile = std::min(tasks, elements / kElementsPerWorker);
  return static_cast<int>(std::clamp<int64_t>(worthwhile, 1, threads));
}

// body(worker, first, count) for [0, n) in pieces of `piece`, taken as workers come free.
template <class Body>
void each_part(int64_t n, int64_t piece, int workers, const Body& body) {
  std::atomic<int64_t> next{0};
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    for (;;) {
      const int64_t first = next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= n) return;
      body(worker, first, std::min(piece, n - first));
    }
  });
}

// Rows that a worker takes at a time: about 64 Ki elements.
inline int64_t rows_at_a_time(int64_t columns) {
  return std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(columns, 1));
}

// Lets the workers of an `atomic` variant start together, as the blocks of a GPU do: else the first
// could be done before the last came. Not for longer than starting a thread takes: the last may be
// waiting for this thread to end.
class StartTogether {
 public:
  explicit StartTogether(int workers) : waiting_(workers) {}
  void wait() {
    --waiting_;
    const auto patience = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
    while (waiting_.load() > 0 && std::chrono::steady_clock::now() < patience)
      std::this_thread::yield();
  }

 private:
  std::atomic<int> waiting_;
};

}  // namespace ndp
