// The only file that knows Python. Tensors arrive as address, shape and strides; everything is
// checked in nondet_probe/ before it comes here, and the interpreter lock is let go around kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>

#include "compare.hpp"
#include "digest.hpp"
#include "isa.hpp"
#include "matmul.hpp"
#include "parallel.hpp"
#include "stream.hpp"
#include "sum.hpp"
#ifdef NDP_SANITIZED
#include "planted.hpp"
#endif

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

#ifdef NDP_SANITIZED
  m.def("planted", &ndp::planted);
#endif

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
  m.def("read_stream", [](uintptr_t data, int64_t bytes, int threads, const std::string& isa) {
    const Released released(bytes);
    return ndp::read_stream(at(data), bytes, threads, isa);
  });
  m.def("ulp_distance", [](int dtype, uintptr_t a, uintptr_t b, int64_t elements,
                           uintptr_t distances, const std::string& isa) {
    const Released released(elements);
    ndp::ulp_distance(static_cast<ndp::Dtype>(dtype), at(a), at(b), elements,
                      at<int64_t>(distances), isa);
  });

  // nondet_probe.ops: x is contiguous, `result` takes one element of its dtype.
  m.def("sum", [](const std::string& variant, bool mean, int dtype, uintptr_t x, int64_t n,
                  int threads, const std::string& isa, uintptr_t result) {
    const Released released(n);
    ndp::sum({static_cast<ndp::Dtype>(dtype), ndp::sum_variant(variant), mean, threads}, at(x), n,
             isa, at(result));
  });
  // strides: in elements; `results` is contiguous.
  m.def("sum_over", [](const std::string& variant, bool mean, int dtype, uintptr_t x,
                       const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                       const std::vector<bool>& reduced, int threads, const std::string& isa,
                       uintptr_t results) {
    int64_t elements = 1;
    for (int64_t count : shape) elements *= count;
    const Released released(elements);
    ndp::sum_over({static_cast<ndp::Dtype>(dtype), ndp::sum_variant(variant), mean, threads}, at(x),
                  {shape, strides}, reduced, isa, at(results));
  });

  // matmul: any strides, in elements; `result` takes a contiguous batch + (m, n).
  m.def("matmul", [](const std::string& variant, int dtype, uintptr_t a, uintptr_t b,
                     uintptr_t result, const std::vector<int64_t>& batch,
                     const std::vector<int64_t>& a_batch_strides,
                     const std::vector<int64_t>& b_batch_strides,
                     const std::tuple<int64_t, int64_t, int64_t>& sizes,
                     const std::tuple<int64_t, int64_t>& a_strides,
                     const std::tuple<int64_t, int64_t>& b_strides, int threads,
                     const std::string& isa) {
    const auto [rows, columns, terms] = sizes;
    const ndp::Matmul job{static_cast<ndp::Dtype>(dtype), at(a), at(b), at(result), batch,
                          a_batch_strides, b_batch_strides, rows, columns, terms,
                          std::get<0>(a_strides), std::get<1>(a_strides), std::get<0>(b_strides),
                          std::get<1>(b_strides)};
    const Released released(rows * columns * terms);
    ndp::matmul(job, ndp::matmul_variant(variant), threads, isa);
  });
}
