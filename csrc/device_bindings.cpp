// What Python sees of the kernels for GPUs. Compiled twice: beside nvcc's objects as
// nondet_probe._cuda, and beside the emulated grid, for tests, as a module of another name.
// Addresses travel as Python integers; `stream` is a cudaStream_t, `blocks` 0 or a launch's size.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bins_device.hpp"
#include "cumsum_device.hpp"
#include "digest_device.hpp"
#include "dot_device.hpp"
#include "layer_norm_device.hpp"
#include "matmul_device.hpp"
#include "scatter_device.hpp"
#include "segment_sum_device.hpp"
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
  // The scatter core: what to add, where, and how an index is meant; the state, two int64, zero
  // before; blocks. Sorted: keys, int32, and rows, int64.
  using Added = std::tuple<int, uintptr_t, uintptr_t, uintptr_t, int64_t, int64_t, int64_t>;
  using Meant = std::tuple<bool, bool, std::tuple<int64_t, int64_t, int64_t>>;
  const auto scatter_of = [](const Added& added, const Meant& meant, uintptr_t state, int blocks) {
    const auto [dtype, out, index, source, n, columns, destinations] = added;
    const auto [wrap, strict, grid] = meant;
    const auto [size, inner, span] = grid;
    return ndp::DeviceScatter{{static_cast<ndp::Dtype>(dtype), at(out), at<const int64_t>(index),
                               at(source), n, columns, destinations, wrap, strict,
                               {size, inner, span}},
                              at<ndp::ScatterState>(state), blocks};
  };
  m.def("scatter_workspace", [=](const std::string& variant, const Added& added,
                                 const Meant& meant) {
    return ndp::scatter_workspace(ndp::scatter_variant(variant), scatter_of(added, meant, 0, 0));
  });
  m.def("scatter", [=](const std::string& variant, const Added& added, const Meant& meant,
                       uintptr_t state, uintptr_t workspace, int blocks, uintptr_t stream) {
    ndp::scatter(ndp::scatter_variant(variant), scatter_of(added, meant, state, blocks),
                 at(workspace), at(stream));
  });
  m.def("scatter_keys", [=](const Added& added, const Meant& meant, uintptr_t state,
                            uintptr_t keys, int blocks, uintptr_t stream) {
    ndp::scatter_keys(scatter_of(added, meant, state, blocks), at<int32_t>(keys), at(stream));
  });
  m.def("scatter_ordered_workspace", [=](const Added& added, const Meant& meant) {
    return ndp::scatter_ordered_workspace(scatter_of(added, meant, 0, 0));
  });
  m.def("scatter_ordered", [=](const Added& added, const Meant& meant, uintptr_t keys,
                               uintptr_t rows, uintptr_t workspace, int blocks, uintptr_t stream) {
    ndp::scatter_ordered(scatter_of(added, meant, 0, blocks), {at<int32_t>(keys), at<int64_t>(rows)},
                         at(workspace), at(stream));
  });
  m.def("scatter_spilled", [=](const Added& added, const Meant& meant, uintptr_t keys,
                               uintptr_t rows, uintptr_t workspace, int blocks, uintptr_t stream) {
    ndp::scatter_spilled(scatter_of(added, meant, 0, blocks), {at<int32_t>(keys), at<int64_t>(rows)},
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

  // segment_sum: data [rows, columns] and offsets, int64, one more than there are segments; all
  // contiguous. The state: two int64, zero before.
  m.def("segment_sum_workspace", [](const std::string& variant, int dtype, int64_t rows,
                                    int64_t columns, int64_t segments) {
    return ndp::segment_sum_workspace(
        ndp::segment_variant(variant),
        {{static_cast<ndp::Dtype>(dtype), nullptr, rows, columns, nullptr, segments}, nullptr,
         nullptr, 0});
  });
  m.def("segment_sum", [](const std::string& variant, int dtype, uintptr_t data, int64_t rows,
                          int64_t columns, uintptr_t offsets, int64_t segments, uintptr_t result,
                          uintptr_t state, uintptr_t workspace, int blocks, uintptr_t stream) {
    ndp::segment_sum(ndp::segment_variant(variant),
                     {{static_cast<ndp::Dtype>(dtype), at(data), rows, columns,
                       at<int64_t>(offsets), segments},
                      at(result), at<ndp::SegmentState>(state), blocks},
                     at(workspace), at(stream));
  });

  // bincount, histogram, embedding: all contiguous. bad: one uint64, zero before.
  m.def("count", [](uintptr_t index, int64_t n, int64_t bins, uintptr_t counts, int blocks,
                    uintptr_t stream) {
    ndp::count_on_device(at<int64_t>(index), n, bins, at<int64_t>(counts), blocks, at(stream));
  });
  m.def("check_indices", [](uintptr_t index, int64_t n, int64_t low, int64_t high,
                            uintptr_t wrapped, uintptr_t bad, int blocks, uintptr_t stream) {
    ndp::check_on_device(at<int64_t>(index), n, low, high, at<int64_t>(wrapped), at<uint64_t>(bad),
                         blocks, at(stream));
  });
  m.def("divide_rows", [](int dtype, uintptr_t table, uintptr_t counts, int64_t rows,
                          int64_t columns, int blocks, uintptr_t stream) {
    ndp::divide_rows_on_device(static_cast<ndp::Dtype>(dtype), at(table), at<int64_t>(counts), rows,
                               columns, blocks, at(stream));
  });
  m.def("find_bins", [](int dtype, uintptr_t edges, int64_t bins, bool uniform, uintptr_t x,
                        int64_t n, uintptr_t index, int blocks, uintptr_t stream) {
    ndp::find_bins_on_device({static_cast<ndp::Dtype>(dtype), at(edges), bins, uniform}, at(x), n,
                             at<int64_t>(index), blocks, at(stream));
  });
  m.def("count_bins", [](int dtype, uintptr_t edges, int64_t bins, bool uniform, uintptr_t x,
                         int64_t n, uintptr_t counts, int blocks, uintptr_t stream) {
    ndp::count_bins_on_device({static_cast<ndp::Dtype>(dtype), at(edges), bins, uniform}, at(x), n,
                              at<int64_t>(counts), blocks, at(stream));
  });
  m.def("bin_sums_workspace", ndp::bin_sums_workspace);
  m.def("bin_sums", [](int dtype, uintptr_t index, uintptr_t weights, int64_t n, int64_t bins,
                       uintptr_t workspace, uintptr_t digits, uintptr_t specials, int blocks,
                       uintptr_t stream) {
    ndp::bin_sums_on_device(static_cast<ndp::Dtype>(dtype), at<int64_t>(index), at(weights), n,
                            bins, at(workspace), at<int64_t>(digits), at<uint8_t>(specials),
                            blocks, at(stream));
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
