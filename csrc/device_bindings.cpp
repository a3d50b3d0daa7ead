// What Python sees of the kernels for GPUs. Compiled twice: beside nvcc's objects as
// nondet_probe._cuda, and beside the emulated grid, for tests, as a module of another name.
// Addresses travel as Python integers; `stream` is a cudaStream_t, `blocks` 0 or a launch's size.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "cumsum_device.hpp"
#include "digest_device.hpp"
#include "dot_device.hpp"
#include "matmul_device.hpp"
#include "sum_device.hpp"
#include "variants.hpp"

namespace py = pybind11;

namespace {

template <class Pointee = void>
Pointee* at(uintptr_t address) {
  return reinterpret_cast<Pointee*>(address);
}

}  // namespace

PYBIND11_MODULE(NDP_MODULE, m) {
  m.doc() = "Kernels of nondet_probe for GPUs; call them through nondet_probe.ops.";

#if !defined(NDP_CUDA)
  // The order in which warps and blocks run in the launches to come.
  m.def("seed", [](uint64_t value, int resident_blocks) {
    ndp::emulated::seed(value, resident_blocks);
  });
#endif

  // Runs on `stream`; `workspace` is what sum_workspace says.
  m.def("sum_workspace", [](const std::string& variant, int dtype, int64_t outer, int64_t n,
                            int64_t inner, int blocks) {
    return ndp::sum_workspace({ndp::sum_variant(variant), static_cast<ndp::Dtype>(dtype), false,
                               nullptr, outer, n, inner, nullptr, blocks});
  });
  m.def("sum", [](const std::string& variant, int dtype, bool mean, uintptr_t x, int64_t outer,
                  int64_t n, int64_t inner, uintptr_t results, uintptr_t workspace, int blocks,
                  uintptr_t stream) {
    ndp::sum({ndp::sum_variant(variant), static_cast<ndp::Dtype>(dtype), mean, at(x), outer, n,
              inner, at(results), blocks},
             at(workspace), at(stream));
  });

  // Tensor i: its dtype, address and shape; two words of its digest to `digests`.
  m.def("digest_workspace", &ndp::digest_workspace);
  m.def("digest", [](const std::vector<int>& dtypes, const std::vector<uintptr_t>& addresses,
                     const std::vector<std::vector<int64_t>>& shapes, uintptr_t workspace,
                     uintptr_t digests, int blocks, uintptr_t stream) {
    if (addresses.size() != dtypes.size() || shapes.size() != dtypes.size())
      throw std::invalid_argument("digest: as many dtypes as addresses and shapes");
    std::vector<ndp::DeviceTensor> tensors;
    for (size_t i = 0; i < dtypes.size(); ++i)
      tensors.push_back({static_cast<ndp::Dtype>(dtypes[i]), at(addresses[i]), shapes[i]});
    ndp::digest(tensors, at(workspace), at<uint64_t>(digests), blocks, at(stream));
  });

  // A norm is the root of the product of x with itself.
  m.def("dot_workspace", [](const std::string& variant, int dtype, int64_t n, int blocks) {
    return ndp::dot_workspace({ndp::dot_variant("dot", variant), static_cast<ndp::Dtype>(dtype),
                               false, nullptr, nullptr, n, nullptr, blocks});
  });
  m.def("dot", [](const std::string& variant, int dtype, bool root, uintptr_t a, uintptr_t b,
                  int64_t n, uintptr_t result, uintptr_t workspace, int blocks, uintptr_t stream) {
    ndp::dot({ndp::dot_variant(root ? "norm" : "dot", variant), static_cast<ndp::Dtype>(dtype),
              root, at(a), at(b), n, at(result), blocks},
             at(workspace), at(stream));
  });

  m.def("cumsum_workspace", [](const std::string& variant, int dtype, int64_t rows, int64_t n,
                               int blocks) {
    return ndp::cumsum_workspace({ndp::cumsum_variant(variant), static_cast<ndp::Dtype>(dtype),
                                  nullptr, rows, n, nullptr, blocks});
  });
  m.def("cumsum", [](const std::string& variant, int dtype, uintptr_t x, int64_t rows, int64_t n,
                     uintptr_t sums, uintptr_t workspace, int blocks, uintptr_t stream) {
    ndp::cumsum({ndp::cumsum_variant(variant), static_cast<ndp::Dtype>(dtype), at(x), rows, n,
                 at(sums), blocks},
                at(workspace), at(stream));
  });

  m.def("matmul_workspace", [](const std::string& variant, int dtype, int64_t rows, int64_t columns,
                               int64_t k, int64_t batches) {
    ndp::Matmul job{};
    job.dtype = static_cast<ndp::Dtype>(dtype);
    job.batch = {batches};
    job.m = rows;
    job.n = columns;
    job.k = k;
    return ndp::matmul_workspace(job, ndp::matmul_variant(variant));
  });
  m.def("matmul", [](const std::string& variant, int dtype, uintptr_t a, uintptr_t b,
                     uintptr_t result, int64_t rows, int64_t columns, int64_t k,
                     int64_t a_row_stride, int64_t a_k_stride, int64_t b_k_stride,
                     int64_t b_column_stride, const std::vector<int64_t>& batch,
                     const std::vector<int64_t>& a_batch_strides,
                     const std::vector<int64_t>& b_batch_strides, uintptr_t workspace, int blocks,
                     uintptr_t stream) {
    ndp::matmul({static_cast<ndp::Dtype>(dtype), at(a), at(b), at(result), batch, a_batch_strides,
                 b_batch_strides, rows, columns, k, a_row_stride, a_k_stride, b_k_stride,
                 b_column_stride},
                ndp::matmul_variant(variant), at(workspace), blocks, at(stream));
  });
}
