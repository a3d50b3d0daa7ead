// Sums down neighbouring columns: which worker adds which columns of which rows.
#include "inexact.hpp"
#include "sum_job.hpp"

namespace ndp {

namespace {

// Rows from `row` on, columns from `column` on.
Rows part_of(const Job& job, const Rows& x, int64_t row, int64_t column) {
  const char* start = static_cast<const char*>(x.x) + column * job.bytes();
  if (x.offset != nullptr) return {start, 0, x.offset + row};
  return {start + row * x.stride * job.bytes(), x.stride, nullptr};
}

int column_workers(const Job& job, int64_t columns) {
  return sum_workers(job.n * columns * job.bytes(), job.most_workers);
}

// Columns that are added together: as many as the kernel takes, but tasks for all workers.
int64_t tile_width(int64_t columns, int64_t most, int64_t tasks_each, int workers) {
  int64_t width = std::min(columns, most);
  while (workers > 1 && width / 2 >= most / 8 && columns / width * tasks_each < 2 * workers)
    width /= 2;
  return width;
}

void write(const Job& job, uint64_t bits, int64_t column, char* results, int64_t step) {
  std::memcpy(results + column * step, &bits, job.bytes());
}

// Replaces the rows of partials by their sum, in the first: rounds as in add_in_rounds.
template <class Partial>
void add_rows_in_rounds(int64_t count, int64_t apart, int64_t columns, Partial* partials) {
  for (int64_t left = count; left > 1; left = (left + 1) / 2) {
    for (int64_t i = 0; i < left / 2; ++i) {
      const Partial* first = partials + 2 * i * apart;
      Partial* to = partials + i * apart;
      for (int64_t column = 0; column < columns; ++column)
        to[column] = first[column] + first[apart + column];
    }
    if (left % 2 != 0)
      std::copy_n(partials + (left - 1) * apart, columns, partials + left / 2 * apart);
  }
}

// fixed_order, and two_pass, which does the same to parts of the rows.
template <class Partial>
void in_chunks(const Job& job, const Rows& x, int64_t columns, int parts, char* results,
               int64_t step) {
  struct Chunk {
    int64_t row, rows;
  };
  std::vector<Chunk> chunks;
  std::vector<int64_t> first_chunk;
  for (int part = 0; part < parts; ++part) {
    first_chunk.push_back(chunks.size());
    const int64_t end = part_start(job.n, part + 1, parts);
    for (int64_t row = part_start(job.n, part, parts); row < end; row += kSumChunk)
      chunks.push_back({row, std::min(kSumChunk, end - row)});
  }
  first_chunk.push_back(chunks.size());

  const int workers = column_workers(job, columns);
  const int64_t count = chunks.size();
  constexpr int64_t kMost = kColumnsBytes / sizeof(Partial);
  const int64_t width = tile_width(columns, kMost, count, workers);
  const int64_t tiles = (columns + width - 1) / width;
  const std::unique_ptr<Partial[]> partials(new Partial[count * columns]);
  each_task(count * tiles, workers, [&](int, int64_t task) {
    const Chunk& chunk = chunks[task / tiles];
    const int64_t column = task % tiles * width;
    job.kernels->columns.chunk(part_of(job, x, chunk.row, column), chunk.rows,
                               std::min(width, columns - column),
                               &partials[task / tiles * columns + column]);
  });
  for (int part = 0; part < parts; ++part) {
    Partial* of_part = &partials[first_chunk[part] * columns];
    add_rows_in_rounds(first_chunk[part + 1] - first_chunk[part], columns, columns, of_part);
    if (part != 0) std::copy_n(of_part, columns, &partials[part * columns]);
  }
  add_rows_in_rounds(parts, columns, columns, partials.get());
  for (int64_t column = 0; column < columns; ++column)
    write(job, finish(job, partials[column]), column, results, step);
}

template <class Partial>
void atomically(const Job& job, const Rows& x, int64_t columns, char* results, int64_t step) {
  const int64_t blocks = (job.n + kAtomicBlock - 1) / kAtomicBlock;
  constexpr int64_t kWidth = kColumnsBytes / sizeof(Partial);
  const int64_t tiles = (columns + kWidth - 1) / kWidth;
  std::vector<Partial> totals(columns, -Partial{0});
  each_task(blocks * tiles, column_workers(job, columns), [&](int, int64_t task) {
    const int64_t row = task / tiles * kAtomicBlock, column = task % tiles * kWidth;
    const int64_t width = std::min(kWidth, columns - column);
    Partial partials[kWidth];
    job.kernels->columns.chunk(part_of(job, x, row, column), std::min(kAtomicBlock, job.n - row),
                               width, partials);
    // Who comes first decides what is added first.
    for (int64_t i = 0; i < width; ++i)
      std::atomic_ref<Partial>(totals[column + i])
          .fetch_add(partials[i], std::memory_order_relaxed);
  });
  for (int64_t column = 0; column < columns; ++column)
    write(job, finish(job, totals[column]), column, results, step);
}

// Room for the exact sums of some columns.
struct ExactRoom {
  std::unique_ptr<double[]> sum, low;
  std::unique_ptr<Superacc[]> acc;
  ExactColumns columns;

  void start(int64_t width, int base_level) {
    if (sum == nullptr) {
      sum.reset(new double[width]);
      low.reset(new double[width]);
      acc.reset(new Superacc[width]);
    }
    columns = {sum.get(), low.get(), acc.get(), false, false, false, base_level, base_level, 0, 0};
  }

  double high_of(int64_t column) const { return columns.sum_used ? sum[column] : -0.0; }
  double low_of(int64_t column) const { return columns.low_used ? low[column] : -0.0; }

  void add_to(Superacc& total, int64_t column) {
    if (columns.acc_used) merge(total, acc[column]);
    make_room(total, 2);
    deposit(total, high_of(column));
    deposit(total, low_of(column));
  }
};

void exactly(const Job& job, const Rows& x, int64_t columns, char* results, int64_t step) {
  const int workers = column_workers(job, columns);
  const int base_level = job.task.dtype != Dtype::float64 && inexact_is_kept() ? 0 : 1;
  const int64_t most = job.task.dtype == Dtype::float64 ? kExactColumns64 : kExactColumns;
  const int64_t width = tile_width(columns, most, 1, workers);
  const int64_t tiles = (columns + width - 1) / width;
  // Where columns alone are not work for all, the rows are cut too, and their sums merged.
  constexpr int64_t kLeastRows = 4096;
  const int64_t wanted = workers == 1 ? 1 : (2 * workers + tiles - 1) / tiles;
  const int parts = static_cast<int>(std::clamp<int64_t>(job.n / kLeastRows, 1, wanted));
  std::vector<ExactRoom> rooms(parts == 1 ? workers : tiles * parts);
  const auto finish_tile = [&](int64_t tile, ExactRoom* of_parts) {
    const int64_t first = tile * width, count = std::min(width, columns - first);
    for (int64_t i = 0; i < count; ++i) {
      Job of_column = job;
      of_column.first += (first + i) * job.n;
      uint64_t bits;
      if (parts == 1 && !of_parts->columns.acc_used) {
        bits = finish(of_column, of_parts->high_of(i), of_parts->low_of(i));
      } else {
        Superacc total;
        clear(total);
        for (int part = 0; part < parts; ++part) of_parts[part].add_to(total, i);
        bits = finish(of_column, total);
      }
      write(job, bits, first + i, results, step);
    }
  };
  each_task(tiles * parts, workers, [&](int worker, int64_t task) {
    const int64_t tile = task / parts, column = tile * width;
    const int part = static_cast<int>(task % parts);
    const int64_t row = part_start(job.n, part, parts);
    ExactRoom& room = rooms[parts == 1 ? worker : task];
    room.start(width, base_level);
    job.kernels->columns.exact(part_of(job, x, row, column),
                               part_start(job.n, part + 1, parts) - row,
                               std::min(width, columns - column), room.columns);
    if (parts == 1) finish_tile(tile, &room);
  });
  if (parts != 1)
    each_task(tiles, workers, [&](int, int64_t tile) { finish_tile(tile, &rooms[tile * parts]); });
}

template <class Partial>
void columns_in(const Job& job, const Rows& x, int64_t columns, char* results, int64_t step) {
  switch (job.task.variant) {
    case SumVariant::atomic:
      return atomically<Partial>(job, x, columns, results, step);
    case SumVariant::two_pass:
      return in_chunks<Partial>(job, x, columns, parts_of(job), results, step);
    case SumVariant::fixed_order:
      return in_chunks<Partial>(job, x, columns, 1, results, step);
    default:
      return exactly(job, x, columns, results, step);
  }
}

}  // namespace

bool has_columns(SumVariant variant) {
  return variant == SumVariant::atomic || variant == SumVariant::two_pass ||
         variant == SumVariant::fixed_order || variant == SumVariant::exact;
}

void sum_columns(const Job& job, const Rows& x, int64_t columns, char* results, int64_t step) {
  if (job.task.dtype == Dtype::float64)
    columns_in<double>(job, x, columns, results, step);
  else
    columns_in<float>(job, x, columns, results, step);
}

}  // namespace ndp
