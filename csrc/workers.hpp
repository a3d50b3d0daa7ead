// How rows, pieces and partial sums are shared out among workers and brought together; for files
// that are compiled once.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "float_mode.hpp"
#include "parallel.hpp"

namespace ndp {

// body(worker, first, count) for every piece of [0, n); workers take pieces as they come free, in
// the default floating-point mode. Pieces are `piece` long, but for the last.
template <class Body>
void share_out(int64_t n, int64_t piece, int workers, const Body& body) {
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

inline int workers_for(int64_t tasks, int threads) {
  return static_cast<int>(std::clamp<int64_t>(tasks, 1, threads));
}

// Neighbours are added in rounds; the last of an odd number waits for the next round. `count` > 0.
template <class Partial>
Partial add_neighbours(Partial* partials, int64_t count) {
  for (int64_t left = count; left > 1; left = (left + 1) / 2) {
    for (int64_t i = 0; i < left / 2; ++i) partials[i] = partials[2 * i] + partials[2 * i + 1];
    if (left % 2 != 0) partials[left / 2] = partials[left - 1];
  }
  return partials[0];
}

}  // namespace ndp
