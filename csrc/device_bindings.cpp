// What Python sees of the kernels for GPUs. Compiled twice: beside nvcc's objects as
// nondet_probe._cuda, and beside the emulated grid, for tests, as a module of another name.
// Addresses travel as Python integers; `stream` is a cudaStream_t, `blocks` 0 or a launch's size.
#include <pybind11/pybind11.h>

#include <string>
#include <tuple>

#include "bins_device.hpp"
#include "scatter_device.hpp"
#include "segment_sum_device.hpp"
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
}
