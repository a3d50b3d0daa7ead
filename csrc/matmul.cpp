// How a product is cut into tiles and slices, who works on them, and how partial products come
// together. The cut into tiles changes no bit, so it may depend on the number of threads.
#include "matmul.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "isa.hpp"
#include "levels.hpp"
#include "matmul_exact.hpp"
#include "workers.hpp"

namespace ndp {

NDP_KERNELS(MatmulKernels, matmul_kernels)

namespace {

// Both are multiples of every level's a_lines and b_lines. A block of k of such a tile fits into
// the second-level cache (256 KiB of b, 196 KiB of a, fp32), together with its sums.
constexpr int64_t kTileRows = 192;
constexpr int64_t kTileColumns = 256;
// With so few rows b is not packed but read as it lies, in rows as long as possible.
constexpr int64_t kFewRows = 4;
constexpr int64_t kTileColumnsOfFew = 1024;
// Smaller tiles are not made for the sake of more threads.
constexpr int64_t kLeastRows = 24;
constexpr int64_t kLeastColumns = 64;
// Multiply-adds that a thread is started for.
constexpr int64_t kTermsPerWorker = int64_t{1} << 17;
constexpr int64_t kAlignment = 64;

int64_t rounds_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
int64_t parts(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

// Uninitialised memory on the boundary of a cache line.
class Memory {
 public:
  explicit Memory(int64_t bytes)
      : start_(static_cast<char*>(
            std::aligned_alloc(kAlignment, rounds_up(std::max<int64_t>(bytes, 1), kAlignment)))) {
    if (start_ == nullptr) throw std::bad_alloc();
  }
  char* at(int64_t byte) const { return start_.get() + byte; }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> start_;
};

// One matrix product out of a batch. The element of line i of a and line j of b goes to
// result[i * row_stride + j * column_stride].
struct Product {
  Factor a, b;
  char* result;
  int64_t row_stride, column_stride;
};

Factor moved(const Factor& factor, int64_t lines, int64_t bytes, int64_t k = 0) {
  return {static_cast<const char*>(factor.data) +
              (lines * factor.line_stride + k * factor.k_stride) * bytes,
          factor.line_stride, factor.k_stride};
}

struct Tile {
  int64_t row, rows;
  int64_t column, columns;
};

// The product turned, where that makes few columns few rows: a fused multiply-add has its factors in
// either order; and its cut into tiles.
class Plan {
 public:
  Plan(const Matmul& job, const MatmulKernels& kernels, int threads)
      : kernels(kernels),
        bytes(element_bytes(job.dtype)),
        sum_bytes(job.dtype == Dtype::float64 ? 8 : 4),
        threads(threads),
        job_(job),
        turned_(job.n < job.m && job.n <= kFewRows),
        rows_(turned_ ? job.n : job.m),
        columns_(turned_ ? job.m : job.n) {
    batches = 1;
    for (int64_t count : job.batch) batches *= count;
    tile_rows_ = std::min(kTileRows, rounds_up(rows_, kernels.a_lines));
    tile_columns_ = std::min(rows_ <= kFewRows ? kTileColumnsOfFew : kTileColumns,
                             rounds_up(columns_, kernels.b_lines));
  }

  // Cuts finer until there are enough tiles for all threads, if `others` tasks share each of them.
  void cut(int64_t others) {
    const int64_t enough = threads == 1 ? 1 : 2 * int64_t{threads};
    while (tiles() * others < enough) {
      if (tile_rows_ >= 2 * kLeastRows && tile_rows_ * 2 >= tile_columns_)
        tile_rows_ = rounds_up(tile_rows_ / 2, kernels.a_lines);
      else if (tile_columns_ >= 2 * kLeastColumns)
        tile_columns_ = rounds_up(tile_columns_ / 2, kernels.b_lines);
      else
        break;
    }
  }

  int64_t tiles() const { return parts(rows_, tile_rows_) * parts(columns_, tile_columns_); }

  Tile tile(int64_t index) const {
    const int64_t across = parts(columns_, tile_columns_);
    const int64_t row = index / across * tile_rows_;
    const int64_t column = index % across * tile_columns_;
    return {row, std::min(tile_rows_, rows_ - row), column,
            std::min(tile_columns_, columns_ - column)};
  }

  int64_t elements() const { return rows_ * columns_; }

  int workers(int64_t tasks, int64_t batches_at_once) const {
    const double terms = static_cast<double>(elements()) * static_cast<double>(job_.k) *
                         static_cast<double>(batches_at_once);
    const double worth = std::min(terms / kTermsPerWorker + 1, static_cast<double>(threads));
    return static_cast<int>(std::clamp<int64_t>(tasks, 1, static_cast<int64_t>(worth)));
  }

  // As the caller has it: rows of a are rows of the result.
  Product upright(int64_t batch) const {
    int64_t a = 0, b = 0, rest = batch;
    for (size_t dim = job_.batch.size(); dim-- > 0;) {
      const int64_t place = rest % job_.batch[dim];
      rest /= job_.batch[dim];
      a += place * job_.a_batch_strides[dim];
      b += place * job_.b_batch_strides[dim];
    }
    const Factor left{static_cast<const char*>(job_.a) + a * bytes, job_.a_row_stride,
                      job_.a_k_stride};
    const Factor right{static_cast<const char*>(job_.b) + b * bytes, job_.b_column_stride,
                       job_.b_k_stride};
    char* result = static_cast<char*>(job_.result) + batch * job_.m * job_.n * bytes;
    return {left, right, result, job_.n, 1};
  }

  Product product(int64_t batch) const {
    const Product as_given = upright(batch);
    if (!turned_) return as_given;
    return {as_given.b, as_given.a, as_given.result, as_given.column_stride, as_given.row_stride};
  }

  // What a worker needs for a tile over k terms: sums, then room for the kernel.
  int64_t sums_stride() const { return tile_columns_; }
  int64_t tile_bytes() const { return rounds_up(tile_rows_ * tile_columns_ * sum_bytes, kAlignment); }
  int64_t worker_bytes(int64_t k) const {
    return tile_bytes() +
           rounds_up(kernels.room(tile_rows_, tile_columns_, k) * sum_bytes, kAlignment);
  }

  // The tile's sums over terms first .. first + count - 1, at the start of `memory`.
  void sum_tile(const Product& of, const Tile& tile, int64_t first, int64_t count,
                char* memory) const {
    kernels.product(moved(of.a, tile.row, bytes, first), moved(of.b, tile.column, bytes, first),
                    tile.rows, tile.columns, count, memory, sums_stride(), memory + tile_bytes());
  }

  void round_tile(const Product& of, const Tile& tile, const char* sums) const {
    kernels.round(sums, sums_stride(), tile.rows, tile.columns,
                  of.result + (tile.row * of.row_stride + tile.column * of.column_stride) * bytes,
                  of.row_stride, of.column_stride);
  }

  const MatmulKernels kernels;
  const int64_t bytes, sum_bytes;
  const int threads;
  int64_t batches;

 private:
  const Matmul& job_;
  const bool turned_;
  const int64_t rows_, columns_;
  int64_t tile_rows_, tile_columns_;
};

void fixed_split(const Matmul& job, Plan& plan) {
  plan.cut(plan.batches);
  const int64_t tiles = plan.tiles();
  const int workers = plan.workers(plan.batches * tiles, plan.batches);
  const Memory memory(workers * plan.worker_bytes(job.k));
  each_task(plan.batches * tiles, workers, [&](int worker, int64_t task) {
    const Product product = plan.product(task / tiles);
    const Tile tile = plan.tile(task % tiles);
    char* sums = memory.at(worker * plan.worker_bytes(job.k));
    plan.sum_tile(product, tile, 0, job.k, sums);
    plan.round_tile(product, tile, sums);
  });
}

void splitk_ordered(const Matmul& job, Plan& plan) {
  const int64_t length =
      kMatmulBlock * parts(parts(job.k, kMatmulBlock), kMatmulSlices);  // of K alone
  const int64_t slices = parts(job.k, length);
  plan.cut(slices);
  const int64_t tiles = plan.tiles();
  const int workers = plan.workers(slices * tiles, 1);
  const Memory memory(workers * plan.worker_bytes(length));
  const Memory partials(slices * tiles * plan.tile_bytes());
  for (int64_t batch = 0; batch < plan.batches; ++batch) {
    const Product product = plan.product(batch);
    each_task(slices * tiles, workers, [&](int worker, int64_t task) {
      const int64_t first = task % slices * length;
      char* sums = memory.at(worker * plan.worker_bytes(length));
      plan.sum_tile(product, plan.tile(task / slices), first, std::min(length, job.k - first),
                    sums);
      std::memcpy(partials.at(task * plan.tile_bytes()), sums, plan.tile_bytes());
    });
    each_task(tiles, workers, [&](int, int64_t task) {
      char* sums = partials.at(task * slices * plan.tile_bytes());
      for (int64_t slice = 1; slice < slices; ++slice)
        plan.kernels.add(sums, sums + slice * plan.tile_bytes(),
                         plan.tile_bytes() / plan.sum_bytes);
      plan.round_tile(product, plan.tile(task), sums);
    });
  }
}

template <class Sum>
void splitk_atomic(const Matmul& job, Plan& plan) {
  const int64_t blocks = parts(job.k, kMatmulBlock);
  const int64_t tiles = plan.tiles();
  const int workers = plan.workers(blocks, 1);
  const int64_t tile_sums = plan.tile_bytes() / plan.sum_bytes;
  const Memory memory(workers * plan.worker_bytes(kMatmulBlock));
  std::vector<Sum> shared(tiles * tile_sums);
  for (int64_t batch = 0; batch < plan.batches; ++batch) {
    const Product product = plan.product(batch);
    std::fill(shared.begin(), shared.end(), -Sum{0});
    StartTogether start(workers);
    parallel_run(workers, [&](int worker) {
      const DefaultFloatMode mode;
      start.wait();
      char* own = memory.at(worker * plan.worker_bytes(kMatmulBlock));
      const int64_t end = blocks * (worker + 1) / workers;
      for (int64_t block = blocks * worker / workers; block < end; ++block)
        for (int64_t index = 0; index < tiles; ++index) {
          const Tile tile = plan.tile(index);
          const int64_t first = block * kMatmulBlock;
          plan.sum_tile(product, tile, first, std::min(kMatmulBlock, job.k - first), own);
          // Who comes first decides what is added first: the only order is that of arrival.
          for (int64_t i = 0; i < tile.rows; ++i)
            for (int64_t j = 0; j < tile.columns; ++j) {
              const int64_t place = i * plan.sums_stride() + j;
              Sum addend;
              std::memcpy(&addend, own + place * sizeof addend, sizeof addend);
              std::atomic_ref<Sum>(shared[index * tile_sums + place])
                  .fetch_add(addend, std::memory_order_relaxed);
            }
        }
    });
    const DefaultFloatMode mode;
    for (int64_t index = 0; index < tiles; ++index)
      plan.round_tile(product, plan.tile(index),
                      reinterpret_cast<const char*>(shared.data() + index * tile_sums));
  }
}

void exact(const Matmul& job, const Plan& plan, const ExactDots& dots) {
  constexpr int64_t kSide = ExactDots::kSide;
  const int64_t tiles_down = parts(job.m, kSide), tiles_across = parts(job.n, kSide);
  const int64_t tiles = tiles_down * tiles_across;
  const int workers = plan.workers(plan.batches * tiles, plan.batches);
  const int64_t room = rounds_up(dots.room(), kAlignment);
  const Memory memory(workers * room);
  each_task(plan.batches * tiles, workers, [&](int worker, int64_t task) {
    const int64_t row = task % tiles / tiles_across * kSide;
    const int64_t column = task % tiles_across * kSide;
    const Product product = plan.upright(task / tiles);
    dots.tile(moved(product.a, row, plan.bytes), std::min(kSide, job.m - row),
              moved(product.b, column, plan.bytes), std::min(kSide, job.n - column), job.k,
              product.result + (row * job.n + column) * plan.bytes, job.n,
              memory.at(worker * room));
  });
}

}  // namespace

void matmul(const Matmul& job, MatmulVariant variant, int threads, const std::string& isa) {
  const Isa level = choose_isa(isa);
  const ExactDots dots(job.dtype, level);  // of all variants: it refuses other dtypes
  Plan plan(job, matmul_kernels(level, job.dtype), threads);
  if (plan.batches * plan.elements() == 0) return;
  if (job.k == 0) {
    std::memset(job.result, 0, plan.batches * plan.elements() * plan.bytes);
    return;
  }
  switch (variant) {
    case MatmulVariant::splitk_atomic:
      return job.dtype == Dtype::float64 ? splitk_atomic<double>(job, plan)
                                         : splitk_atomic<float>(job, plan);
    case MatmulVariant::splitk_ordered:
      return splitk_ordered(job, plan);
    case MatmulVariant::fixed_split:
      return fixed_split(job, plan);
    case MatmulVariant::exact:
      return exact(job, plan, dots);
  }
}

}  // namespace ndp
