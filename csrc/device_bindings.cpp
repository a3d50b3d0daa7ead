// What Python sees of the kernels for GPUs. Compiled twice: beside nvcc's objects as
// nondet_probe._cuda, and beside the emulated grid, for tests, as a module of another name.
// Addresses travel as Python integers; `stream` is a cudaStream_t, `blocks` 0 or a launch's size.
#include <pybind11/pybind11.h>

#include <string>

#include "layer_norm_device.hpp"
#include "softmax_device.hpp"
#include "sum_device.hpp"
#include "var_device.hpp"
#include "variants.hpp"

namespace py = pybind11;

namespace {

template <class Pointee = void>
Pointee* at(uintptr_t address) {
  return reinterpret_cast<Pointee*>(address);
}

ndp::EntropyOptions entropy_options(int64_t ignored, int reduction, double smoothing) {
  return {ignored, static_cast<ndp::Reduction>(reduction), smoothing};
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

  // layer_norm, rms_norm: null addresses are 0.
  m.def("layer_norm", [](bool centred, int dtype, uintptr_t x, int64_t rows, int64_t columns,
                         uintptr_t weight, uintptr_t bias, double eps, uintptr_t y,
                         uintptr_t statistics, int blocks, uintptr_t stream) {
    ndp::layer_norm({static_cast<ndp::Dtype>(dtype), centred, rows, columns, at(x), at(weight),
                     at(bias), eps, nullptr, at(statistics), at(y), blocks},
                    at(stream));
  });
  m.def("layer_norm_workspace", [](bool centred, const std::string& variant, int dtype, int64_t rows,
                                   int64_t columns, int blocks) {
    return ndp::layer_norm_workspace({static_cast<ndp::Dtype>(dtype), centred, rows, columns,
                                      nullptr, nullptr, nullptr, 0.0, nullptr, nullptr, nullptr,
                                      blocks},
                                     ndp::rows_variant(variant));
  });
  m.def("layer_norm_backward",
        [](bool centred, const std::string& variant, int dtype, uintptr_t gradient, uintptr_t x,
           int64_t rows, int64_t columns, uintptr_t weight, uintptr_t statistics, uintptr_t dx,
           uintptr_t dgamma, uintptr_t dbeta, uintptr_t workspace, int blocks, uintptr_t stream) {
          ndp::layer_norm_backward(
              {static_cast<ndp::Dtype>(dtype), centred, rows, columns, at(x), at(weight), nullptr,
               0.0, at(gradient), at(statistics), at(dx), blocks},
              ndp::rows_variant(variant), at(dgamma), at(dbeta), at(workspace), at(stream));
        });

  m.def("softmax", [](bool log, int dtype, uintptr_t x, int64_t rows, int64_t columns, uintptr_t y,
                      int blocks, uintptr_t stream) {
    ndp::softmax({static_cast<ndp::Dtype>(dtype), log, rows, columns, at(x), nullptr, at(y), blocks},
                 at(stream));
  });
  m.def("softmax_backward", [](bool log, int dtype, uintptr_t gradient, uintptr_t y, int64_t rows,
                               int64_t columns, uintptr_t dx, int blocks, uintptr_t stream) {
    ndp::softmax_backward(
        {static_cast<ndp::Dtype>(dtype), log, rows, columns, at(y), at(gradient), at(dx), blocks},
        at(stream));
  });

  // reduction: 0 none, 1 mean, 2 sum. `first_bad`: one int64 on the device, `rows` before; the
  // position of the first target that is no class afterwards.
  m.def("cross_entropy_workspace", [](const std::string& variant, int dtype, int64_t rows,
                                      int blocks) {
    ndp::DeviceEntropy job{};
    job.dtype = static_cast<ndp::Dtype>(dtype);
    job.rows = rows;
    job.blocks = blocks;
    return ndp::cross_entropy_workspace(job, ndp::rows_variant(variant));
  });
  m.def("cross_entropy", [](const std::string& variant, int dtype, uintptr_t x, uintptr_t target,
                            int64_t rows, int64_t columns, uintptr_t weight, int64_t ignored,
                            int reduction, double smoothing, uintptr_t result, uintptr_t statistics,
                            uintptr_t weights, uintptr_t first_bad, uintptr_t workspace, int blocks,
                            uintptr_t stream) {
    ndp::cross_entropy({static_cast<ndp::Dtype>(dtype),
                        entropy_options(ignored, reduction, smoothing), rows, columns, at(x),
                        at<int64_t>(target), at(weight), nullptr, at(statistics),
                        at<double>(weights), at(result), blocks},
                       ndp::rows_variant(variant), at<int64_t>(first_bad), at(workspace),
                       at(stream));
  });
  m.def("cross_entropy_backward",
        [](int dtype, uintptr_t gradient, uintptr_t x, uintptr_t target, int64_t rows,
           int64_t columns, uintptr_t weight, int64_t ignored, int reduction, double smoothing,
           uintptr_t statistics, uintptr_t weights, uintptr_t dx, int blocks, uintptr_t stream) {
          ndp::cross_entropy_backward(
              {static_cast<ndp::Dtype>(dtype), entropy_options(ignored, reduction, smoothing), rows,
               columns, at(x), at<int64_t>(target), at(weight), at(gradient), at(statistics),
               at<double>(weights), at(dx), blocks},
              at(stream));
        });

  // Rows of n > 0 elements.
  m.def("var_mean_workspace", [](const std::string& variant, int dtype, int64_t rows, int64_t n,
                                 int blocks) {
    return ndp::var_mean_workspace({ndp::var_variant(variant), static_cast<ndp::Dtype>(dtype),
                                    nullptr, rows, n, 0, nullptr, nullptr, blocks});
  });
  m.def("var_mean", [](const std::string& variant, int dtype, uintptr_t x, int64_t rows, int64_t n,
                       int64_t correction, uintptr_t var, uintptr_t mean, uintptr_t workspace,
                       int blocks, uintptr_t stream) {
    ndp::var_mean({ndp::var_variant(variant), static_cast<ndp::Dtype>(dtype), at(x), rows, n,
                   correction, at(var), at(mean), blocks},
                  at(workspace), at(stream));
  });
}
