// The only file that knows Python. Tensors arrive as address, shape and strides; everything is
// checked in nondet_probe/ before it comes here, and the interpreter lock is let go around kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>

#include "compare.hpp"
#include "digest.hpp"
#include "host_libs.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "slices.hpp"
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

  // nondet_probe.mitigate: torch's own kernels under threads that we set.
  m.def("set_one_thread", ndp::set_one_thread);
  m.def("restore_threads", ndp::restore_threads);
  // Run body(item) for every item, each with one thread, on the threads of OpenMP. An exception
  // ends the rest; one of them is raised.
  m.def("each_on_one_thread", [](int workers, int items, const py::function& body) {
    std::exception_ptr failed;
    std::atomic<int> next{0};
    {
      const py::gil_scoped_release released;
      ndp::parallel_run(std::min(workers, items), [&](int) {
        const ndp::OneThread alone;
        const py::gil_scoped_acquire held;
        for (int item; !failed && (item = next++) < items;) {
          try {
            body(item);
          } catch (...) {
            if (!failed) failed = std::current_exception();
          }
        }
      });
    }
    if (failed) std::rethrow_exception(failed);
  });
  m.def("cut_product", [](int64_t batch, int64_t m, int64_t k, int64_t n) {
    const ndp::Cut cut = ndp::cut_product(batch, m, k, n);
    return py::make_tuple(cut.rows, cut.columns, cut.depth);
  });
  // Each matrix as (address, strides); sizes as (batch, m, k, n).
  using Given = std::tuple<uintptr_t, int64_t, int64_t, int64_t>;
  m.def("product", [](bool doubles, std::tuple<int64_t, int64_t, int64_t, int64_t> sizes, Given a,
                      Given b, Given c, double alpha, double beta, int threads) {
    const auto matrix = [](const Given& x) {
      return ndp::Matrix{std::get<0>(x), std::get<1>(x), std::get<2>(x), std::get<3>(x)};
    };
    const auto [batch, rows, inner, columns] = sizes;
    const ndp::Product given{batch, rows, inner, columns, matrix(a), matrix(b), matrix(c), alpha, beta};
    const Released released(rows * inner + inner * columns + rows * columns);
    return doubles ? ndp::product<double>(given, threads) : ndp::product<float>(given, threads);
  });
}
