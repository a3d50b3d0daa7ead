// Threads for the kernels: those that torch's own kernels run on, where that is OpenMP.
#pragma once

namespace ndp {

using Work = void (*)(void* context, int worker);

// work(context, worker) for worker = 0..workers-1, on as many threads as can be had, at most
// `workers`. A worker must not wait for another one: with fewer threads it has not begun.
void run_workers(int workers, Work work, void* context);

// "openmp" when the process's own OpenMP pool is used, else "std::thread".
const char* thread_pool();

// Run body(worker) for worker = 0..workers-1. `body` must not throw.
template <class Body>
void parallel_run(int workers, const Body& body) {
  if (workers <= 1) {
    body(0);
    return;
  }
  const auto work = [](void* context, int worker) { (*static_cast<const Body*>(context))(worker); };
  run_workers(workers, work, const_cast<Body*>(&body));
}

}  // namespace ndp
