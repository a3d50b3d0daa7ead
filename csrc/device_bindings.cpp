// What Python sees of the kernels for GPUs. Compiled twice: beside nvcc's objects as
// nondet_probe._cuda, and beside the emulated grid, for tests, as a module of another name.
// Addresses travel as Python integers; `stream` is a cudaStream_t, `blocks` 0 or a launch's size.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "digest_device.hpp"
#include "scatter_device.hpp"
#include "sum_device.hpp"

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
}
