// The only file that knows Python. Tensors arrive as address, shape and strides; everything is
// checked in nondet_probe/ before it comes here, and the interpreter lock is let go around kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "compare.hpp"
#include "digest.hpp"
#include "isa.hpp"
#include "layer_norm.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "softmax.hpp"
#include "sum.hpp"

namespace py = pybind11;

namespace {

// Addresses travel as Python integers.
template <class Pointee = void>
Pointee* at(uintptr_t address) {
  return reinterpret_cast<Pointee*>(address);
}

// Letting the lock go costs more than a small kernel does.
constexpr int64_t kReleaseBytes = 1 << 16;

class Released {
 public:
  explicit Released(int64_t bytes) {
    if (bytes >= kReleaseBytes) released_.emplace();
  }

 private:
  std::optional<py::gil_scoped_release> released_;
};

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Kernels of nondet_probe; call them through nondet_probe.bits and nondet_probe.ops.";

  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (ndp::Isa isa : ndp::available_isas()) names.emplace_back(ndp::isa_name(isa));
    return names;
  });
  m.def("chosen_isa", [] { return std::string(ndp::isa_name(ndp::choose_isa(""))); });

  m.def("thread_pool", [] { return std::string(ndp::thread_pool()); });

  // nondet_probe.bits: addresses of contiguous arrays of `dtype` (csrc/dtypes.hpp).
  m.def("bytes_equal", [](uintptr_t a, uintptr_t b, int64_t bytes) {
    const Released released(bytes);
    return bytes == 0 || std::memcmp(at(a), at(b), bytes) == 0;
  });
  m.def("compare", [](int dtype, uintptr_t a, uintptr_t b, int64_t elements, int threads,
                      const std::string& isa) {
    ndp::Compared found;
    {
      const Released released(elements);
      found = ndp::compare(static_cast<ndp::Dtype>(dtype), at(a), at(b), elements, threads, isa);
    }
    return py::make_tuple(found.different, found.max_ulp, found.first,
                          found.sum_squares_difference, found.sum_squares);
  });
  // strides: in elements.
  m.def("digest", [](int dtype, uintptr_t data, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& strides, int threads, const std::string& isa) {
    int64_t elements = 1;
    for (int64_t count : shape) elements *= count;
    const Released released(elements);
    return ndp::digest(static_cast<ndp::Dtype>(dtype), at(data), {shape, strides}, threads, isa);
  });
  m.def("ulp_distance", [](int dtype, uintptr_t a, uintptr_t b, int64_t elements,
                           uintptr_t distances, const std::string& isa) {
    const Released released(elements);
    ndp::ulp_distance(static_cast<ndp::Dtype>(dtype), at(a), at(b), elements,
                      at<int64_t>(distances), isa);
  });

  // nondet_probe.ops: x is contiguous, `result` takes one element of its dtype.
  m.def("sum", [](const std::string& variant, int dtype, uintptr_t x, int64_t n, int threads,
                  const std::string& isa, uintptr_t result) {
    const Released released(n);
    ndp::sum(static_cast<ndp::Dtype>(dtype), ndp::sum_variant(variant), at(x), n, threads, isa,
             at(result));
  });

  // nondet_probe.ops, rows: matrices are contiguous; an address of 0 stands for none. `statistics`
  // holds 2 * rows elements of fp64 for fp64, else of fp32.
  m.def("layer_norm", [](bool centred, int dtype, uintptr_t x, int64_t rows, int64_t columns,
                         uintptr_t weight, uintptr_t bias, double eps, int threads,
                         const std::string& isa, uintptr_t y, uintptr_t statistics) {
    const Released released(rows * columns);
    ndp::layer_norm(static_cast<ndp::Dtype>(dtype), centred, at(x), rows, columns, at(weight),
                    at(bias), eps, threads, isa, at(y), at(statistics));
  });
  m.def("layer_norm_backward",
        [](bool centred, const std::string& variant, int dtype, uintptr_t gradient, uintptr_t x,
           int64_t rows, int64_t columns, uintptr_t weight, uintptr_t statistics, int threads,
           const std::string& isa, uintptr_t dx, uintptr_t dgamma, uintptr_t dbeta) {
          const Released released(rows * columns);
          ndp::layer_norm_backward(static_cast<ndp::Dtype>(dtype), centred,
                                   ndp::rows_variant(variant), at(gradient), at(x), rows, columns,
                                   at(weight), at(statistics), threads, isa, at(dx), at(dgamma),
                                   at(dbeta));
        });
  m.def("softmax", [](bool log, int dtype, uintptr_t x, int64_t rows, int64_t columns, int threads,
                      const std::string& isa, uintptr_t y) {
    const Released released(rows * columns);
    ndp::softmax(static_cast<ndp::Dtype>(dtype), log, at(x), rows, columns, threads, isa, at(y));
  });
  m.def("softmax_backward",
        [](bool log, int dtype, uintptr_t gradient, uintptr_t y, int64_t rows, int64_t columns,
           int threads, const std::string& isa, uintptr_t dx) {
          const Released released(rows * columns);
          ndp::softmax_backward(static_cast<ndp::Dtype>(dtype), log, at(gradient), at(y), rows,
                                columns, threads, isa, at(dx));
        });
  // reduction: the index of none, mean, sum. weights: one fp64.
  m.def("cross_entropy",
        [](const std::string& variant, int dtype, uintptr_t x, uintptr_t target, int64_t rows,
           int64_t columns, uintptr_t weight, int64_t ignored, int reduction, double smoothing,
           int threads, const std::string& isa, uintptr_t result, uintptr_t statistics,
           uintptr_t weights) {
          const Released released(rows * columns);
          ndp::cross_entropy(static_cast<ndp::Dtype>(dtype), ndp::rows_variant(variant), at(x),
                             at<int64_t>(target), rows, columns, at(weight),
                             {ignored, static_cast<ndp::Reduction>(reduction), smoothing}, threads,
                             isa, at(result), at(statistics), at<double>(weights));
        });
  m.def("cross_entropy_backward",
        [](int dtype, uintptr_t gradient, uintptr_t x, uintptr_t target, int64_t rows,
           int64_t columns, uintptr_t weight, int64_t ignored, int reduction, double smoothing,
           uintptr_t statistics, uintptr_t weights, int threads, const std::string& isa,
           uintptr_t dx) {
          const Released released(rows * columns);
          ndp::cross_entropy_backward(static_cast<ndp::Dtype>(dtype), at(gradient), at(x),
                                      at<int64_t>(target), rows, columns, at(weight),
                                      {ignored, static_cast<ndp::Reduction>(reduction), smoothing},
                                      at(statistics), *at<double>(weights), threads, isa, at(dx));
        });
  m.def("exp", [](int dtype, uintptr_t x, int64_t n, const std::string& isa, uintptr_t result) {
    ndp::exp_all(static_cast<ndp::Dtype>(dtype), at(x), n, isa, at(result));
  });
  m.def("log", [](uintptr_t x, int64_t n, uintptr_t result) {
    ndp::log_all(at<double>(x), n, at<double>(result));
  });
}
