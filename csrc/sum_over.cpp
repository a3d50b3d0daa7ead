// Sums over dimensions: which elements belong together, and in which of three forms they are read.
// Rows lie one after the other; columns lie beside each other; all else is gathered.
#include "sum_job.hpp"

namespace ndp {

namespace {

struct Dim {
  int64_t size;
  int64_t stride;  // elements
  int64_t out;     // the same in the results; 0 for a reduced dimension
};

struct Plan {
  std::vector<Dim> kept, reduced;  // neighbours merged, none of one element
  int64_t results = 1;
  int64_t n = 1;  // elements of each
};

// Adds an inner dimension, to the last one if that continues it.
void add_inner(std::vector<Dim>& dims, const Dim& dim) {
  if (!dims.empty() && dims.back().stride == dim.stride * dim.size &&
      dims.back().out == dim.out * dim.size) {
    dims.back() = {dims.back().size * dim.size, dim.stride, dim.out};
  } else {
    dims.push_back(dim);
  }
}

// Whether the order of the elements makes no difference to what is promised.
bool any_order(SumVariant variant) {
  return variant == SumVariant::atomic || variant == SumVariant::binned ||
         variant == SumVariant::exact;
}

Plan plan_of(const Layout& layout, const std::vector<bool>& is_reduced, SumVariant variant) {
  Plan plan;
  std::vector<Dim> kept, reduced;
  for (size_t dim = layout.shape.size(); dim-- > 0;) {
    const int64_t size = layout.shape[dim];
    const bool reduce = is_reduced[dim];
    const Dim found{size, layout.strides[dim], reduce ? 0 : plan.results};
    (reduce ? plan.n : plan.results) *= size;
    if (size != 1) (reduce ? reduced : kept).insert((reduce ? reduced : kept).begin(), found);
  }
  // Results may be computed in any order, so memory decides; elements only where they may.
  const auto in_memory = [](const Dim& a, const Dim& b) {
    return a.stride != 0 && b.stride != 0 ? a.stride > b.stride : a.stride < b.stride;
  };
  std::stable_sort(kept.begin(), kept.end(), in_memory);
  if (any_order(variant)) std::stable_sort(reduced.begin(), reduced.end(), in_memory);
  for (const Dim& dim : kept) add_inner(plan.kept, dim);
  for (const Dim& dim : reduced) add_inner(plan.reduced, dim);
  return plan;
}

// Where place `index` of these dimensions, counted row-major, lies in the input and in the results.
struct Place {
  int64_t in = 0, out = 0;
};
Place place_of(const std::vector<Dim>& dims, size_t count, int64_t index) {
  Place place;
  for (size_t dim = count; dim-- > 0;) {
    const int64_t at = index % dims[dim].size;
    index /= dims[dim].size;
    place.in += at * dims[dim].stride;
    place.out += at * dims[dim].out;
  }
  return place;
}

struct Sums {
  Job job;  // of the first result
  Plan plan;
  char* results;

  void write(uint64_t bits, int64_t out) const {
    std::memcpy(results + out * job.bytes(), &bits, job.bytes());
  }
};

// body(i) for i < count: on all threads, or one after the other where each i has work for all.
template <class Body>
void each_result(const Job& job, int64_t count, int64_t bytes_each, int64_t together,
                 const Body& body) {
  const bool within = bytes_each >= 2 * kWorkerBytes || count == 1;
  const int workers = within ? 1 : sum_workers(count * bytes_each, job.most_workers);
  share_out(count, together, workers, [&](int, int64_t first, int64_t some) {
    body(first, some, within ? job.most_workers : 1);
  });
}

void sum_rows(const Sums& sums) {
  const auto& kept = sums.plan.kept;
  const int64_t bytes = sums.plan.n * sums.job.bytes();
  const int64_t together = std::max<int64_t>(1, kGatherBytes / 4 / bytes);
  each_result(sums.job, sums.plan.results, bytes, together,
              [&](int64_t first, int64_t count, int threads) {
                Job of_row = sums.job;
                of_row.most_workers = threads;
                for (int64_t row = first; row < first + count; ++row) {
                  const Place place = place_of(kept, kept.size(), row);
                  of_row.x = sums.job.x + place.in * sums.job.bytes();
                  sums.write(sum_bits(of_row), place.out);
                }
              });
}

void sum_gathered(const Sums& sums) {
  const int64_t n = sums.plan.n, bytes = n * sums.job.bytes();
  // Together: what fits the cache; and where neighbours lie in one cache line, some even if not.
  constexpr int64_t kNeighbours = 16, kMostBytes = int64_t{64} << 20;
  const bool scattered = sums.plan.reduced.back().stride != 1;
  int64_t together = std::max<int64_t>(1, kGatherBytes / bytes);
  if (scattered) together = std::max(together, std::min(kNeighbours, kMostBytes / bytes));
  together = std::clamp<int64_t>(together, 1, sums.plan.results);
  each_result(sums.job, sums.plan.results, bytes, together,
              [&](int64_t first, int64_t count, int threads) {
                Job of_row = sums.job;
                of_row.most_workers = threads;
                std::unique_ptr<unsigned char[]> copied;
                if (count > 1) {
                  copied = sums.job.buffer(count * n);
                  sums.job.gather->copy(first * n, count * n, copied.get());
                  of_row.gather = nullptr;
                }
                for (int64_t row = 0; row < count; ++row) {
                  of_row.x = reinterpret_cast<const char*>(copied.get()) + row * bytes;
                  of_row.first = (first + row) * n;
                  const auto& kept = sums.plan.kept;
                  sums.write(sum_bits(of_row), place_of(kept, kept.size(), first + row).out);
                }
              });
}

void sum_matrices(const Sums& sums) {
  const auto& kept = sums.plan.kept;
  const auto& reduced = sums.plan.reduced;
  const Dim& columns = kept.back();
  std::vector<int64_t> offsets;
  if (reduced.size() > 1) {
    offsets.resize(sums.plan.n);
    for (int64_t row = 0; row < sums.plan.n; ++row)
      offsets[row] = place_of(reduced, reduced.size(), row).in;
  }
  const int64_t bytes = sums.plan.n * columns.size * sums.job.bytes();
  each_result(sums.job, sums.plan.results / columns.size, bytes, 1,
              [&](int64_t matrix, int64_t, int threads) {
                const Place place = place_of(kept, kept.size() - 1, matrix);
                Job of_matrix = sums.job;
                of_matrix.most_workers = threads;
                of_matrix.first = matrix * columns.size * sums.plan.n;
                const Rows rows{sums.job.x + place.in * sums.job.bytes(), reduced.back().stride,
                                offsets.empty() ? nullptr : offsets.data()};
                sum_columns(of_matrix, rows, columns.size,
                            sums.results + place.out * sums.job.bytes(),
                            columns.out * sums.job.bytes());
              });
}

}  // namespace

void sum_over(const SumTask& task, const void* x, const Layout& layout,
              const std::vector<bool>& reduced, const std::string& isa, void* results) {
  const Format& format = format_of(task.dtype, "sum");
  const AllSumKernels kernels = all_sum_kernels(choose_isa(isa), task.dtype);
  const DefaultFloatMode mode;
  Sums sums{{task, &kernels, &format, static_cast<const char*>(x), nullptr, 0, 0, task.threads},
            plan_of(layout, reduced, task.variant),
            static_cast<char*>(results)};
  const Plan& plan = sums.plan;
  sums.job.n = plan.n;
  if (plan.results == 0) return;
  if (plan.n == 0) {
    for (int64_t i = 0; i < plan.results; ++i) sums.write(nothing(sums.job), i);
    return;
  }
  if (plan.reduced.empty() || (plan.reduced.size() == 1 && plan.reduced[0].stride == 1))
    return sum_rows(sums);

  Layout in_order;  // the elements of a sum one after the other
  for (const auto* dims : {&plan.kept, &plan.reduced})
    for (const Dim& dim : *dims) {
      in_order.shape.push_back(dim.size);
      in_order.strides.push_back(dim.stride);
    }
  const Gather gather(x, in_order, element_bytes(task.dtype));
  sums.job.gather = &gather;
  constexpr int64_t kLeastColumnsBytes = 64;
  if (has_columns(task.variant) && !plan.kept.empty() && plan.kept.back().stride == 1 &&
      plan.reduced.back().stride != 1 &&
      plan.kept.back().size * element_bytes(task.dtype) >= kLeastColumnsBytes)
    return sum_matrices(sums);
  sum_gathered(sums);
}

}  // namespace ndp
