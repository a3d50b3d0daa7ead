// Threads for the kernels. They are started for one call and joined before it returns: nothing
// survives a fork, and below the sizes where starting one (some 20 us) matters callers use one.
#pragma once

#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace ndp {

// Run body(worker) for worker = 0..threads-1, the last on the calling thread.
// `body` must not throw.
template <class Body>
void parallel_run(int threads, const Body& body) {
  std::vector<std::thread> others;
  others.reserve(threads > 1 ? threads - 1 : 0);
  for (int worker = 0; worker + 1 < threads; ++worker)
    others.emplace_back([&body, worker] { body(worker); });
  body(threads - 1);
  for (std::thread& other : others) other.join();
}

}  // namespace ndp
