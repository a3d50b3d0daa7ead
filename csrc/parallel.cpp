// A pool of our own would fight torch's: libgomp's threads spin for some milliseconds after each
// parallel region, so on a machine whose cores are all used ours would wait for a core. (Measured
// on two cores right after a `torch.sum`: a sum of 256 MB took up to 1.6 times as long.) And a
// thread of OpenMP's that is still awake starts in about a microsecond, a new one in twenty.
//
// We are not linked against OpenMP: torch's wheels bring a copy of their own, under a name of their
// own, and a second copy would be a second pool. torch makes its copy's symbols global, so they are
// looked up in the process; GOMP_parallel is part of the stable ABI of GNU's libgomp and is offered
// by LLVM's and Intel's libraries too. Without it, threads are started for each call.
#include "parallel.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <thread>
#include <vector>

namespace ndp {

namespace {

using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

std::atomic<bool> forked{false};

// A forked child has the parent's pool on its books but none of its threads: a region there hangs.
Parallel openmp() {
#ifdef NDP_OWN_THREADS  // for ThreadSanitizer, which does not understand libgomp's barriers
  return nullptr;
#else
  static const int watched = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  static std::atomic<Parallel> found{nullptr};  // torch may be imported after us
  if (forked || watched != 0) return nullptr;
  if (!found) found = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
#endif
}

struct Team {
  Work work;
  void* context;
  int workers;
  std::atomic<int> next{0};

  void join() {
    for (int worker; (worker = next.fetch_add(1, std::memory_order_relaxed)) < workers;)
      work(context, worker);
  }
};

}  // namespace

void run_workers(int workers, Work work, void* context) {
  Team team{work, context, workers};
  if (const Parallel parallel = openmp()) {
    parallel([](void* shared) { static_cast<Team*>(shared)->join(); }, &team,
             static_cast<unsigned>(workers), 0);
    return;
  }
  std::vector<std::thread> others;
  others.reserve(workers - 1);
  for (int other = 1; other < workers; ++other) others.emplace_back([&team] { team.join(); });
  team.join();
  for (std::thread& other : others) other.join();
}

const char* thread_pool() { return openmp() ? "openmp" : "std::thread"; }

}  // namespace ndp
