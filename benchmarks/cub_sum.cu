// CUB's sums behind C functions, for benchmarks/_cub.py: one for each of its determinism levels.
// Needs CCCL 3.1 or newer (nvidia-cuda-cccl on PyPI, or CUDA 13.1), which is not part of this
// repository.

#include <cstdint>

#include <cub/device/device_reduce.cuh>
#include <cub/version.cuh>
#include <cuda/stream_ref>

namespace {

// CUB takes its temporary memory from the stream's pool itself.
template <class T, class Level>
int sum(const void* in, void* out, std::int64_t n, void* stream, Level level) {
  const auto how = cuda::std::execution::env{
      cuda::execution::require(level),
      cuda::stream_ref{static_cast<cudaStream_t>(stream)}};
  return cub::DeviceReduce::Sum(static_cast<const T*>(in), static_cast<T*>(out), n, how);
}

template <class Level>
int either(int is_double, const void* in, void* out, std::int64_t n, void* stream, Level level) {
  return is_double ? sum<double>(in, out, n, stream, level) : sum<float>(in, out, n, stream, level);
}

}  // namespace

// Each adds n numbers into one on a stream and returns a cudaError_t.
extern "C" {

int cub_not_guaranteed(int is_double, const void* in, void* out, std::int64_t n, void* stream) {
  return either(is_double, in, out, n, stream, cuda::execution::determinism::not_guaranteed);
}

int cub_run_to_run(int is_double, const void* in, void* out, std::int64_t n, void* stream) {
  return either(is_double, in, out, n, stream, cuda::execution::determinism::run_to_run);
}

int cub_gpu_to_gpu(int is_double, const void* in, void* out, std::int64_t n, void* stream) {
  return either(is_double, in, out, n, stream, cuda::execution::determinism::gpu_to_gpu);
}

int cub_version() { return CCCL_VERSION; }

}  // extern "C"
