// How rows, pieces and partial sums are shared out among workers and brought together; for files
// that are compiled once.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "float_mode.hpp"
#include "parallel.hpp"

namespace ndp {

inline int workers_for(int64_t tasks, int threads) {
  return static_cast<int>(std::clamp<int64_t>(tasks, 1, threads));
}

// Every worker asks start(worker) for a body(first, count), and takes pieces of [0, n) as they come
// free, in the default floating-point mode. Pieces are `piece` long, but for the last.
template <class Start>
void share_out_to(int64_t n, int64_t piece, int workers, const Start& start) {
  std::atomic<int64_t> next{0};
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    const auto body = start(worker);
    for (;;) {
      const int64_t first = next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= n) return;
      body(first, std::min(piece, n - first));
    }
  });
}

// The same with one body(worker, first, count) for all.
template <class Body>
void share_out(int64_t n, int64_t piece, int workers, const Body& body) {
  share_out_to(n, piece, workers, [&body](int worker) {
    return [&body, worker](int64_t first, int64_t count) { body(worker, first, count); };
  });
}

// body(worker, task) for every task < tasks, the same way.
template <class Body>
void each_task(int64_t tasks, int workers, const Body& body) {
  share_out(tasks, 1, workers_for(tasks, workers),
            [&body](int worker, int64_t task, int64_t) { body(worker, task); });
}

// Neighbours are added in rounds; the last of an odd number waits for the next round. The sum, of
// `count` > 0, is the first.
template <class Partial, class Add = std::plus<>>
void add_in_rounds(int64_t count, Partial* partials, const Add& add = {}) {
  for (int64_t left = count; left > 1; left = (left + 1) / 2) {
    for (int64_t i = 0; i < left / 2; ++i) partials[i] = add(partials[2 * i], partials[2 * i + 1]);
    if (left % 2 != 0) partials[left / 2] = partials[left - 1];
  }
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
