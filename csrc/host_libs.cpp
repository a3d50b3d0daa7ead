#include "host_libs.hpp"

#include <dlfcn.h>

#include <stdexcept>

namespace ndp {

namespace {

template <class Function>
void find(void* library, const char* name, Function& into) {
  into = reinterpret_cast<Function>(dlsym(library, name));
}

HostLibs look_up() {
  HostLibs found{};
  find(RTLD_DEFAULT, "omp_get_max_threads", found.omp_get_max_threads);
  find(RTLD_DEFAULT, "omp_set_num_threads", found.omp_set_num_threads);
  // Python loads torch's libraries with local symbols; only what is loaded already is opened.
  if (void* torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD)) {
    // In lower case it would be the Fortran one, which takes a pointer.
    find(torch, "MKL_Set_Num_Threads_Local", found.mkl_set_num_threads_local);
    // Another BLAS might start threads that we could not hold back.
    if (found.mkl_set_num_threads_local) {
      find(torch, "sgemm_", found.sgemm);
      find(torch, "dgemm_", found.dgemm);
    }
  }
  return found;
}

}  // namespace

const HostLibs& host_libs() {
  static const HostLibs found = look_up();
  return found;
}

OneThread::OneThread() : omp_(0), mkl_(0) {
  const HostLibs& libs = host_libs();
  if (libs.omp_get_max_threads && libs.omp_set_num_threads) {
    omp_ = libs.omp_get_max_threads();
    libs.omp_set_num_threads(1);
  }
  if (libs.mkl_set_num_threads_local) mkl_ = libs.mkl_set_num_threads_local(1);
}

OneThread::~OneThread() {
  const HostLibs& libs = host_libs();
  if (libs.mkl_set_num_threads_local) libs.mkl_set_num_threads_local(mkl_);
  if (omp_) libs.omp_set_num_threads(omp_);
}

long set_one_thread() {
  const HostLibs& libs = host_libs();
  if (!libs.omp_get_max_threads || !libs.omp_set_num_threads) {
    throw std::runtime_error("this process has no OpenMP library whose threads could be set");
  }
  const long omp = libs.omp_get_max_threads();
  libs.omp_set_num_threads(1);
  const long mkl = libs.mkl_set_num_threads_local ? libs.mkl_set_num_threads_local(1) : 0;
  return omp | mkl << 32;
}

void restore_threads(long saved) {
  const HostLibs& libs = host_libs();
  if (libs.mkl_set_num_threads_local) libs.mkl_set_num_threads_local(static_cast<int>(saved >> 32));
  libs.omp_set_num_threads(static_cast<int>(saved & 0xffffffff));
}

}  // namespace ndp
