// Which way rows are added, and on how many threads; `atomic` and `ordered`.
#include "scatter.hpp"

#include <stdexcept>

#include "isa.hpp"
#include "levels.hpp"
#include "scatter_parts.hpp"
#include "table.hpp"

namespace ndp {

NDP_KERNELS(ScatterKernels, scatter_kernels)

namespace scattering {

namespace {

// ---- atomic

template <class T>
void add_atomically(T& cell, T x) {
  if constexpr (sizeof(T) > 2) {
    std::atomic_ref<T>(cell).fetch_add(x, std::memory_order_relaxed);
  } else {
    std::atomic_ref<uint16_t> shared(cell.bits);
    uint16_t seen = shared.load(std::memory_order_relaxed);
    while (!shared.compare_exchange_weak(seen, rounded<T>(value(T{seen}) + value(x)).bits,
                                         std::memory_order_relaxed)) {
    }
  }
}

template <class T>
void scatter_atomic(Scattering<T>& job) {
  const int64_t n = job.job.n, columns = job.job.columns;
  const int workers = workers_for(job.elements() / kWorkerElements, job.threads);
  StartTogether start(workers);
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    start.wait();
    job.each_block(n * worker / workers, n * (worker + 1) / workers,
                   [&](const int64_t* index, int64_t first, int64_t count) {
                     for (int64_t i = 0; i < count; ++i) {
                       T* row = job.out() + index[i] * columns;
                       const T* x = job.source((first + i) * columns);
                       for (int64_t c = 0; c < columns; ++c) add_atomically(row[c], x[c]);
                     }
                   });
  });
  make_nans_equal(job);
}

// ---- ordered

// Cells of all tables of a wave: 256 KB of float32.
constexpr int64_t kTablesCells = 65536;

// Cell by cell, in chunks whose length depends on the number of destinations alone, or in one chunk
// if it is to be strict. Each chunk is added, in order, to a table of its own, the first to the
// initial values; the tables are added in the order of the chunks.
template <class T>
void add_chunks(Scattering<T>& job, typename Element<T>::Sum* sums) {
  using Sum = typename Element<T>::Sum;
  const int64_t n = job.job.n, destinations = job.job.destinations;
  const int64_t length = job.job.strict ? std::max<int64_t>(n, 1) : ordered_chunk(destinations);
  const int64_t chunks = std::max<int64_t>((n + length - 1) / length, 1);
  // To the table of the cells [low, high).
  const auto add_chunk = [&](int64_t chunk, Sum* table, int64_t low, int64_t high) {
    const bool far = (high - low) * static_cast<int64_t>(sizeof(Sum)) > kFarBytes;
    job.each_run(chunk * length, std::min(n, (chunk + 1) * length), low, high,
                 [&](const int64_t* index, const T* source, int64_t count) {
                   return job.kernels.add(table, index, source, count, high - low, far);
                 });
  };
  const int workers = workers_for(n / kWorkerElements, job.threads);

  if (workers > 1 && chunks >= workers) {
    // Some chunks at a time, so that the tables stay in cache: workers wait at the end of a wave.
    const int64_t fitting = kTablesCells / std::max<int64_t>(destinations, 1);
    const int64_t wave = std::min<int64_t>(chunks, std::max<int64_t>(fitting, 4 * workers));
    Table<Sum> tables(wave * destinations);
    constexpr int64_t kPiece = 4096;
    const int64_t pieces = (destinations + kPiece - 1) / kPiece;
    for (int64_t first = 0; first < chunks; first += wave) {
      const int64_t some = std::min(wave, chunks - first);
      each_task(some, workers, [&](int, int64_t which) {
        Sum* table = sums;
        if (first + which > 0) {
          table = &tables[which * destinations];
          std::fill_n(table, destinations, -Sum{0});
        }
        add_chunk(first + which, table, 0, destinations);
      });
      each_task(pieces, workers_for(some * pieces / 4, workers), [&](int, int64_t piece) {
        const int64_t start = piece * kPiece, count = std::min(kPiece, destinations - start);
        for (int64_t which = first == 0 ? 1 : 0; which < some; ++which) {
          const Sum* table = &tables[which * destinations + start];
          for (int64_t i = 0; i < count; ++i) sums[start + i] += table[i];
        }
        if (first + some == chunks) round_all(sums + start, job.out() + start, count);
      });
    }
    return;
  }

  // Few chunks, many destinations: each worker has a range of these, and reads all indices.
  each_task(workers, workers, [&](int, int64_t part) {
    const auto [low, high] = part_of(destinations, part, workers);
    add_chunk(0, sums + low, low, high);
    Table<Sum> table(chunks > 1 ? high - low : 0);
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      std::fill_n(table.data(), high - low, -Sum{0});
      add_chunk(chunk, table.data(), low, high);
      for (int64_t d = low; d < high; ++d) sums[d] += table[d - low];
    }
    round_all(sums + low, job.out() + low, high - low);
  });
}

// An index along one dimension, strictly in order: each worker has tables of its own (the dimensions
// before that one) or columns (those behind it).
template <class T>
void add_along(Scattering<T>& job, typename Element<T>::Sum* sums) {
  using Sum = typename Element<T>::Sum;
  constexpr int64_t kLine = 64 / sizeof(Sum);
  const auto [size, inner, span] = job.job.grid;
  const int64_t tables = job.job.n / span, lines = (inner + kLine - 1) / kLine;
  const int most = workers_for(job.job.n / kWorkerElements, job.threads);
  // A narrow band takes as long as all columns: the lines between those of the band come with them.
  const int bands = workers_for(lines / 16, most);
  const bool by_columns = tables < bands;
  const int workers = by_columns ? bands : workers_for(tables, most);
  each_task(workers, workers, [&, size = size, inner = inner, span = span](int, int64_t part) {
    Patch patch{0, size, inner, 0, inner};
    int64_t table = 0, end = tables;
    if (by_columns) {
      patch.first = lines * part / workers * kLine;
      patch.end = std::min(inner, lines * (part + 1) / workers * kLine);
    } else {
      table = tables * part / workers;
      end = tables * (part + 1) / workers;
    }
    const int64_t bytes = size * (patch.end - patch.first) * static_cast<int64_t>(sizeof(Sum));
    for (; table < end; ++table) {
      Sum* to = sums + table * size * inner;
      const int64_t first = table * span, rows = span / inner;
      const int64_t* index = job.job.index + first;
      const bool far = bytes > kFarBytes;
      int64_t added = span;
      if (inner == 1)
        added = job.kernels.add(to, index, job.source(first), span, size, far);
      else
        added = job.kernels.add_columns(to, index, job.source(first), rows, patch, far);
      if (added < span) return job.note_bad(first + added);
      T* out = job.out() + (to - sums);
      if (!by_columns) {
        round_all(to, out, size * inner);
        continue;
      }
      for (int64_t i = patch.first; i < size * inner; i += inner)
        round_all(to + i, out + i, patch.end - patch.first);
    }
  });
}

// Whole rows, in order: each worker has columns of its own, or destinations where the rows are short.
template <class T>
void add_rows(Scattering<T>& job) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t columns = job.job.columns, destinations = job.job.destinations;
  const int workers = workers_for(job.elements() / kWorkerElements, job.threads);
  const int64_t lines = (columns + kLine - 1) / kLine;
  const bool by_columns = lines >= 16 * workers;
  each_task(workers, workers, [&](int, int64_t part) {
    Patch patch{0, destinations, columns, 0, columns};
    if (by_columns) {
      patch.first = lines * part / workers * kLine;
      patch.end = std::min(columns, lines * (part + 1) / workers * kLine);
    } else {
      patch.low = destinations * part / workers;
      patch.high = destinations * (part + 1) / workers;
    }
    job.each_block(0, job.job.n, [&](const int64_t* index, int64_t first, int64_t count) {
      job.kernels.add_patch(job.out(), index, job.source(first * columns), count, patch);
    });
  });
  make_nans_equal(job);
}

template <class T>
void scatter_ordered(Scattering<T>& job) {
  using Sum = typename Element<T>::Sum;
  constexpr bool kInPlace = sizeof(T) == sizeof(Sum);
  const auto add_elements = [&](Sum* sums) {
    const bool along = job.job.strict && job.job.grid.size > 0 && !job.job.wrap;
    return along ? add_along(job, sums) : add_chunks(job, sums);
  };
  if constexpr (kInPlace) {
    if (job.job.columns == 1) return add_elements(job.out());
    return add_rows(job);
  } else {
    if (job.job.columns == 1) {
      Table<Sum> sums(job.cells());
      job.kernels.widen(job.out(), job.cells(), sums.data());
      return add_elements(sums.data());
    }
    each_group(job, [&](T* cells, const RowGroup& group) {
      Sum sums[kRowWidth];
      job.kernels.widen(cells, group.width, sums);
      job.kernels.add_group(sums, group);
      round_all(sums, cells, group.width);
    });
    make_nans_equal(job);
  }
}

template <class T>
int64_t run(ScatterVariant variant, const Scatter& given, const ScatterKernels& kernels,
            int threads) {
  const DefaultFloatMode mode;
  Scattering<T> job(given, kernels, threads);
  switch (variant) {
    case ScatterVariant::atomic:
      scatter_atomic(job);
      break;
    case ScatterVariant::ordered:
      scatter_ordered(job);
      break;
    case ScatterVariant::fixed_point:
      scatter_fixed_point(job);
      break;
    case ScatterVariant::exact:
      scatter_exact(job);
      break;
  }
  return job.bad();
}

}  // namespace

}  // namespace scattering

int64_t scatter(ScatterVariant variant, const Scatter& job, int threads, const std::string& isa) {
  using namespace scattering;
  const ScatterKernels kernels = scatter_kernels(choose_isa(isa), job.dtype);
  switch (job.dtype) {
    case Dtype::float64:
      return run<double>(variant, job, kernels, threads);
    case Dtype::float32:
      return run<float>(variant, job, kernels, threads);
    case Dtype::bfloat16:
      return run<Bf16>(variant, job, kernels, threads);
    case Dtype::float16:
      return run<F16>(variant, job, kernels, threads);
    default:
      throw std::invalid_argument("scatter takes float64, float32, bfloat16 and float16");
  }
}

int64_t check_indices(const int64_t* index, int64_t n, int64_t low, int64_t high,
                      int64_t* wrapped) {
  for (int64_t i = 0; i < n; ++i) {
    if (index[i] < low || index[i] >= high) return i;
    if (wrapped != nullptr) wrapped[i] = index[i] < 0 ? index[i] + high : index[i];
  }
  return -1;
}

}  // namespace ndp
