// Entry points of the libraries that torch brings along, looked up in the process: we are linked
// against none of them (parallel.cpp says why).
#pragma once

namespace ndp {

// C := alpha op(A) op(B) + beta C of the Fortran BLAS, 32-bit integers, column-major.
template <class Real>
using Gemm = void (*)(const char* transa, const char* transb, const int* m, const int* n,
                      const int* k, const Real* alpha, const Real* a, const int* lda, const Real* b,
                      const int* ldb, const Real* beta, Real* c, const int* ldc);

// Null where the process has none.
struct HostLibs {
  int (*omp_get_max_threads)();
  void (*omp_set_num_threads)(int);
  int (*mkl_set_num_threads_local)(int);  // returns the previous value, 0 where none was set
  Gemm<float> sgemm;                      // MKL's; null unless its threads can be set as well
  Gemm<double> dgemm;
};

// Looked up at the first call: torch must be imported by then.
const HostLibs& host_libs();

// While it lives, OpenMP regions, torch's kernels and MKL's started by this thread run on this
// thread alone; no other thread is affected. torch must have initialized its threads on this thread
// before (torch.get_num_threads() does it), or it does so later and undoes this.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int omp_;
  int mkl_;
};

// The same in two halves, for Python: what set_one_thread returns goes to restore_threads.
// Throws std::runtime_error where there is no OpenMP.
long set_one_thread();
void restore_threads(long saved);

}  // namespace ndp
