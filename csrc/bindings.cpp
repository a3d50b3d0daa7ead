// The only file, with arguments.hpp, that knows Python. Tensors arrive as address, shape and strides; everything is
// checked in nondet_probe/ before it comes here, and the interpreter lock is let go around kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstring>
#include <numeric>
#include <exception>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "arguments.hpp"
#include "bincount.hpp"
#include "compare.hpp"
#include "cumsum.hpp"
#include "digest.hpp"
#include "dot.hpp"
#include "embedding.hpp"
#include "histogram.hpp"
#include "host_libs.hpp"
#include "isa.hpp"
#include "layer_norm.hpp"
#include "matmul.hpp"
#include "norm.hpp"
#include "operands.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "scatter.hpp"
#include "segment_sum.hpp"
#include "sketch.hpp"
#include "softmax.hpp"
#include "stream.hpp"
#include "slices.hpp"
#include "sum.hpp"
#include "var.hpp"
#include "variants.hpp"
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
    py::tuple ulps(ndp::kUlpBuckets);
    for (int bucket = 0; bucket < ndp::kUlpBuckets; ++bucket)
      ulps[bucket] = py::int_(found.ulps[bucket]);
    return py::make_tuple(found.different, found.max_ulp, found.first,
                          found.sum_squares_difference, found.sum_squares, found.sum_squares_other,
                          found.dot, ulps);
  });
  // strides: in elements.
  m.def("digest", [](int dtype, uintptr_t data, const std::vector<int64_t>& shape,
                     const std::vector<int64_t>& strides, int threads, const std::string& isa) {
    int64_t elements = 1;
    for (int64_t count : shape) elements *= count;
    const Released released(elements);
    return ndp::digest(static_cast<ndp::Dtype>(dtype), at(data), {shape, strides}, threads, isa);
  });
  // Every tensor in nested tuples, lists and dicts: (16 bytes a tensor, the two words of its digest,
  // little-endian; a text of all that is no tensor; types not looked into). None where one cannot be
  // read where it lies. tensors: false for the text alone. threads: used for `alone` bytes and more.
  using ReaderTypes = ndp::OperandReader::Types;
  py::class_<ndp::OperandReader>(m, "OperandReader")
      .def(py::init<py::dict, ReaderTypes, ReaderTypes, ReaderTypes, py::object, py::type>())
      .def("digests", [](const ndp::OperandReader& reader, const py::object& given, bool tensors,
                         int threads, int64_t alone) -> py::object {
        const ndp::Operands found = reader.read(given, tensors);
        if (!found.readable) return py::none();
        std::vector<ndp::DigestWords> words;
        {
          const Released released(found.bytes);
          words = ndp::digests(found.tensors, found.bytes < alone ? 1 : threads, "");
        }
        return py::make_tuple(
            py::bytes(reinterpret_cast<const char*>(words.data()),
                      words.size() * sizeof(ndp::DigestWords)),
            py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
                found.text.data(), static_cast<Py_ssize_t>(found.text.size()), "replace")),
            found.unknown.empty() ? py::object(py::none()) : py::cast(found.unknown));
      })
      // threads: as above.
      .def("surely_equal", [](const ndp::OperandReader& reader, const py::object& one,
                              const py::object& other, int threads, int64_t alone) {
        const ndp::Operands a = reader.read(one, true), b = reader.read(other, true);
        const Released released(a.bytes);
        return ndp::surely_equal(a, b, a.bytes < alone ? 1 : threads);
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

  // (dtype, data, shape, strides in elements, seed) of every tensor; buckets: 4,096 doubles.
  using Sketched =
      std::tuple<int, uintptr_t, std::vector<int64_t>, std::vector<int64_t>, uint64_t>;
  m.def("sketch", [](const std::vector<Sketched>& given, int threads, const std::string& isa,
                     uintptr_t buckets) {
    std::vector<ndp::SketchedTensor> tensors;
    tensors.reserve(given.size());
    for (const auto& [dtype, data, shape, strides, seed] : given)
      tensors.push_back({static_cast<ndp::Dtype>(dtype), at(data), {shape, strides}, seed});
    const py::gil_scoped_release released;
    ndp::sketch(tensors, threads, isa, at<double>(buckets));
  });

  // nondet_probe.ops: kinds holds (types, types of a list's elements) for each argument.
  using Types = ndp::Arguments::Types;
  py::class_<ndp::Arguments>(m, "Arguments")
      .def(py::init<std::vector<std::pair<Types, Types>>, Types, py::object>())
      .def("look", [](const ndp::Arguments& arguments, const py::tuple& given) {
        return static_cast<int>(arguments.look(given));
      });

  // x is contiguous, `result` takes one element of its dtype.
  m.def("sum", [](const std::string& variant, bool mean, int dtype, uintptr_t x, int64_t n,
                  int threads, const std::string& isa, uintptr_t result) {
    const Released released(n);
    ndp::sum({static_cast<ndp::Dtype>(dtype), ndp::sum_variant(variant), mean, threads}, at(x), n,
             isa, at(result));
  });
  // strides: in elements; dims: those to add over; `results` is contiguous.
  m.def("sum_over", [](const std::string& variant, bool mean, int dtype, uintptr_t x,
                       const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                       const std::vector<int64_t>& dims, int threads, const std::string& isa,
                       uintptr_t results) {
    int64_t elements = 1;
    for (int64_t count : shape) elements *= count;
    std::vector<bool> reduced(shape.size());
    for (int64_t dim : dims) reduced.at(dim) = true;
    const Released released(elements);
    ndp::sum_over({static_cast<ndp::Dtype>(dtype), ndp::sum_variant(variant), mean, threads}, at(x),
                  {shape, strides}, reduced, isa, at(results));
  });

  // matmul: any strides, in elements; `result` takes a contiguous batch + (m, n).
  m.def("matmul", [](const std::string& variant, int dtype, uintptr_t a, uintptr_t b,
                     uintptr_t result, int64_t m, int64_t n, int64_t k, int64_t a_row_stride,
                     int64_t a_k_stride, int64_t b_k_stride, int64_t b_column_stride,
                     const std::vector<int64_t>& batch, const std::vector<int64_t>& a_batch_strides,
                     const std::vector<int64_t>& b_batch_strides, int threads,
                     const std::string& isa) {
    const ndp::Matmul job{static_cast<ndp::Dtype>(dtype), at(a), at(b), at(result), batch,
                          a_batch_strides, b_batch_strides, m, n, k, a_row_stride, a_k_stride,
                          b_k_stride, b_column_stride};
    const bool large = !batch.empty() || m * n >= kReleaseBytes || m * n * k >= kReleaseBytes;
    const Released released(large ? kReleaseBytes : 0);
    ndp::matmul(job, ndp::matmul_variant(variant), threads, isa);
  });

  // scatter: out holds the initial values. Both give the position of the first bad index, or -1.
  m.def("scatter", [](const std::string& variant, int dtype, uintptr_t out, uintptr_t index,
                      uintptr_t source, int64_t n, int64_t columns, int64_t destinations,
                      int threads, const std::string& isa, bool wrap, bool strict, int64_t size, int64_t inner,
                      int64_t span) {
    const Released released((n + destinations) * columns);
    return ndp::scatter(ndp::scatter_variant(variant),
                        {static_cast<ndp::Dtype>(dtype), at(out), at<int64_t>(index), at(source), n,
                         columns, destinations, wrap, strict, {size, inner, span}},
                        threads, isa);
  });
  m.def("check_indices", [](uintptr_t index, int64_t n, int64_t low, int64_t high,
                            uintptr_t wrapped) {
    const Released released(n);
    return ndp::check_indices(at<int64_t>(index), n, low, high, at<int64_t>(wrapped));
  });

  // dot and norm: a, b and x are contiguous.
  m.def("dot", [](const std::string& variant, int dtype, uintptr_t a, uintptr_t b, int64_t n,
                  int threads, const std::string& isa, uintptr_t result) {
    const Released released(n);
    ndp::dot(static_cast<ndp::Dtype>(dtype), ndp::dot_variant("dot", variant), false, at(a), at(b),
             n, threads, isa, at(result));
  });
  m.def("norm", [](const std::string& variant, int dtype, uintptr_t x, int64_t n, int threads,
                   const std::string& isa, uintptr_t result) {
    const Released released(n);
    ndp::norm(static_cast<ndp::Dtype>(dtype), ndp::dot_variant("norm", variant), at(x), n, threads,
              isa, at(result));
  });

  // var: x holds `rows` rows of n elements, contiguous; `var` and `mean` take one element a row.
  m.def("var_mean", [](const std::string& variant, int dtype, uintptr_t x, int64_t rows, int64_t n,
                       int64_t correction, int threads, const std::string& isa, uintptr_t var,
                       uintptr_t mean) {
    const Released released(rows * n);
    ndp::var_mean(static_cast<ndp::Dtype>(dtype), ndp::var_variant(variant), at(x), rows, n,
                  correction, threads, isa, at(var), at(mean));
  });

  // cumsum: x and `sums` hold `rows` rows of n elements, contiguous, and do not overlap.
  m.def("cumsum", [](const std::string& variant, int dtype, uintptr_t x, int64_t rows, int64_t n,
                     int threads, const std::string& isa, uintptr_t sums) {
    const Released released(rows * n);
    ndp::cumsum(static_cast<ndp::Dtype>(dtype), ndp::cumsum_variant(variant), at(x), rows, n,
                threads, isa, at(sums));
  });

  // segment_sum: data [rows, columns] and sizes, int64, contiguous: [segments] lengths, or offsets,
  // one more.
  m.def("segment_sum", [](const std::string& variant, int dtype, uintptr_t data, int64_t rows,
                          int64_t columns, uintptr_t sizes, int64_t segments, bool are_offsets,
                          int threads, const std::string& isa, uintptr_t result) {
    const Released released(rows * columns + segments);
    const int64_t* offsets = at<int64_t>(sizes);
    std::vector<int64_t> sums;
    if (!are_offsets) {
      sums.resize(segments + 1);
      std::partial_sum(offsets, offsets + segments, sums.begin() + 1);
      offsets = sums.data();
    }
    ndp::segment_sum(
        ndp::segment_variant(variant),
        {static_cast<ndp::Dtype>(dtype), at(data), rows, columns, offsets, segments}, threads, isa,
        at(result));
  });
  // bincount, embedding: all contiguous; counts of indices that have been checked.
  m.def("count", [](uintptr_t index, int64_t n, int64_t bins, int threads, uintptr_t counts) {
    const Released released(n + bins);
    ndp::count(at<int64_t>(index), n, bins, threads, at<int64_t>(counts));
  });
  m.def("extremes", [](uintptr_t index, int64_t n) {
    const Released released(n);
    const ndp::Extremes found = ndp::extremes(at<int64_t>(index), n);
    return std::pair(found.least, found.most);
  });
  m.def("widen", [](int dtype, uintptr_t x, int64_t n, uintptr_t wide) {
    const Released released(n);
    ndp::widen(static_cast<ndp::Dtype>(dtype), at(x), n, at<double>(wide));
  });
  m.def("divide_rows", [](int dtype, uintptr_t table, uintptr_t counts, int64_t rows,
                          int64_t columns) {
    const Released released(rows * columns);
    ndp::divide_rows(static_cast<ndp::Dtype>(dtype), at(table), at<int64_t>(counts), rows, columns);
  });

  // histogram: edges are bins + 1; `index` takes one number an element, `bins` for those outside.
  m.def("range_of", [](int dtype, uintptr_t x, int64_t n) {
    const Released released(n);
    const ndp::Range range = ndp::range_of(static_cast<ndp::Dtype>(dtype), at(x), n);
    return std::pair(range.low, range.high);
  });
  m.def("bin_edges", [](int dtype, double low, double high, int64_t bins, uintptr_t edges) {
    ndp::bin_edges(static_cast<ndp::Dtype>(dtype), {low, high}, bins, at(edges));
  });
  m.def("falling_edge", [](int dtype, uintptr_t edges, int64_t n) {
    return ndp::falling_edge(static_cast<ndp::Dtype>(dtype), at(edges), n);
  });
  m.def("find_bins", [](int dtype, uintptr_t edges, int64_t bins, bool uniform, uintptr_t x,
                        int64_t n, int threads, uintptr_t index) {
    const Released released(n);
    ndp::find_bins({static_cast<ndp::Dtype>(dtype), at(edges), bins, uniform}, at(x), n, threads,
                   at<int64_t>(index));
  });
  m.def("count_bins", [](int dtype, uintptr_t edges, int64_t bins, bool uniform, uintptr_t x,
                         int64_t n, int threads, uintptr_t counts, uintptr_t hist) {
    const Released released(n);
    ndp::count_bins({static_cast<ndp::Dtype>(dtype), at(edges), bins, uniform}, at(x), n, threads,
                    at<int64_t>(counts), at(hist));
  });
  m.def("normalise", [](int dtype, uintptr_t edges, int64_t bins, uintptr_t hist) {
    ndp::normalise({static_cast<ndp::Dtype>(dtype), at(edges), bins, false}, at(hist));
  });
  m.def("bin_sums", [](int dtype, uintptr_t index, uintptr_t weights, int64_t n, int64_t bins,
                       uintptr_t digits, uintptr_t specials) {
    const Released released(n);
    ndp::bin_sums(static_cast<ndp::Dtype>(dtype), at<int64_t>(index), at(weights), n, bins,
                  at<int64_t>(digits), at<uint8_t>(specials));
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
  // reduction: the index of none, mean, sum. weights: one fp64. Without a gradient to come both
  // addresses of what only it needs, `statistics` and `weights`, are 0.
  m.def("cross_entropy",
        [](const std::string& variant, int dtype, uintptr_t x, uintptr_t target, int64_t rows,
           int64_t columns, uintptr_t weight, int64_t ignored, int reduction, double smoothing,
           int threads, const std::string& isa, uintptr_t result, uintptr_t statistics,
           uintptr_t weights) {
          const Released released(rows * columns);
          const bool kept = statistics != 0;
          std::vector<double> own(kept ? 0 : 2 * rows + 1);
          ndp::cross_entropy(static_cast<ndp::Dtype>(dtype), ndp::rows_variant(variant), at(x),
                             at<int64_t>(target), rows, columns, at(weight),
                             {ignored, static_cast<ndp::Reduction>(reduction), smoothing}, threads,
                             isa, at(result), kept ? at(statistics) : own.data(),
                             kept ? at<double>(weights) : &own.back());
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

  // nondet_probe.mitigate: torch's own kernels under threads that we set.
  m.def("set_one_thread", ndp::set_one_thread);
  m.def("restore_threads", ndp::restore_threads);
  // Run body(item) for every item, each with one thread, on the threads of OpenMP; on each of these
  // prepare() first. An exception ends the rest; one of them is raised.
  m.def("each_on_one_thread", [](int workers, int items, const py::function& prepare,
                                 const py::function& body) {
    std::exception_ptr failed;
    std::atomic<int> next{0};
    {
      const py::gil_scoped_release released;
      ndp::parallel_run(std::min(workers, items), [&](int) {
        const py::gil_scoped_acquire held;
        prepare();
        const ndp::OneThread alone;
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
