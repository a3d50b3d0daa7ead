// `exact` of `scatter`: additions of fp64 that are checked to be exact.
#include "inexact.hpp"
#include "scatter_parts.hpp"
#include "table.hpp"

namespace ndp::scattering {

namespace {

// A table with room for one thread's share of the sums.
struct ExactTable {
  Table<double> high;
  Table<double> low;  // empty until the first addition that was rounded
  std::vector<Spilled> spilled;
};

// Cells after a rounded addition that are added as pairs at once.
constexpr int64_t kPairsAfterMiss = 8 * kExactCells;

// Adds up to the first index that is not one of the table's; how many elements.
template <class T>
int64_t add_to_table(const Scattering<T>& job, ExactTable& table, const int64_t* index,
                     const T* source, int64_t count) {
  const bool plainly = sizeof(T) < sizeof(double) && inexact_is_kept();
  const int64_t cells = table.high.size();
  const bool far = cells * int64_t{sizeof(double)} > kFarBytes;
  for (int64_t i = 0; i < count;) {
    if (plainly)
      i += job.kernels.add_exactly(table.high.data(), index + i, source + i, count - i, cells, far);
    int64_t some = std::min(kPairsAfterMiss, count - i);
    const int64_t bad = check_indices(index + i, some, 0, cells, nullptr);
    if (bad >= 0) some = bad;
    if (some == 0) return i;
    if (table.low.empty()) {
      table.low = Table<double>(cells);
      std::fill_n(table.low.data(), cells, 0.0);
    }
    const size_t before = table.spilled.size();
    table.spilled.resize(before + some);
    const int64_t spilled =
        job.kernels.add_pairs(table.high.data(), table.low.data(), index + i, source + i, some,
                              table.spilled.data() + before);
    table.spilled.resize(before + spilled);
    i += some;
  }
  return count;
}

// Adds x to high + low and says whether these still hold the sum exactly.
bool add_to_pair(double& high, double& low, double x) {
  const double sum = high + x;
  const double of_x = sum - high;
  const double error = (high - (sum - of_x)) + (x - of_x);
  const double rest = low + error;
  const bool exact = rest - low == error && rest - error == low;
  high = sum;
  low = rest;
  return exact;
}

// The cells [low, high), in one table or, to be added up at the end, in several. Cells of tables
// count from low.
template <class T>
class ExactCells {
 public:
  ExactCells(Scattering<T>& job, Range cells, int tables)
      : job_(job), cells_(cells), tables_(tables) {}

  // Adds the elements [first, end) that belong here to one of the tables.
  void add(int which, int64_t first, int64_t end) {
    ExactTable& table = tables_[which];
    if (table.high.empty()) start(table, which == 0);
    job_.each_run(first, end, cells_.low, cells_.high,
                  [&](const int64_t* index, const T* source, int64_t count) {
                    return add_to_table(job_, table, index, source, count);
                  });
  }

  void finish(int workers) {
    const int64_t count = cells_.high - cells_.low;
    if (tables_[0].high.empty()) start(tables_[0], true);
    std::erase_if(tables_, [](const ExactTable& table) { return table.high.empty(); });
    each_task((count + kSome - 1) / kSome, workers, [&](int, int64_t some) {
      finish_some(some * kSome, std::min(kSome, count - some * kSome));
    });
    finish_spilled();
  }

 private:
  static constexpr int64_t kSome = 1024;

  T& cell(int64_t which) const { return job_.out()[cells_.low + which]; }

  // The first table starts with the initial values, the others with what changes no sum.
  void start(ExactTable& table, bool first) {
    table.high = Table<double>(cells_.high - cells_.low);
    for (int64_t i = 0; i < table.high.size(); ++i)
      table.high[i] = first ? static_cast<double>(value(cell(i))) : -0.0;
  }

  void finish_some(int64_t first, int64_t count) {
    double sums[kSome];
    if (all_exact(first, count, sums))
      for (int64_t i = 0; i < count; ++i) cell(first + i) = rounded<T>(sums[i]);
    else
      for (int64_t i = first; i < first + count; ++i) finish_one(i);
  }

  // Whether the low parts are all zero and the high ones add up without a rounding.
  bool all_exact(int64_t first, int64_t count, double* sums) const {
    for (const ExactTable& table : tables_) {
      if (table.low.empty()) continue;
      bool zero = true;
      for (int64_t i = 0; i < count; ++i) zero &= table.low[first + i] == 0.0;
      if (!zero) return false;
    }
    std::copy_n(&tables_[0].high[first], count, sums);
    if (tables_.size() == 1) return true;
    if (!inexact_is_kept()) return false;
    clear_inexact();
    for (size_t t = 1; t < tables_.size(); ++t)
      for (int64_t i = 0; i < count; ++i) sums[i] += tables_[t].high[first + i];
    return !inexact_after(sums);
  }

  void finish_one(int64_t which) {
    double high = -0.0, low = 0.0;
    bool exact = true;
    for (const ExactTable& table : tables_) {
      exact = exact && add_to_pair(high, low, table.high[which]);
      // A zero there has no sign to give.
      const double rest = table.low.empty() ? 0.0 : table.low[which];
      if (rest != 0.0) exact = exact && add_to_pair(high, low, rest);
    }
    if (exact)
      cell(which) = from_bits<T>(round_pair(high, low, Element<T>::format));
    else
      finish_by_digits(which, nullptr, nullptr);
  }

  void finish_by_digits(int64_t which, const Spilled* first, const Spilled* end) {
    Superacc acc;
    clear(acc);
    const auto add = [&](double x) {
      make_room(acc, 1);
      deposit(acc, x);
    };
    for (const ExactTable& table : tables_) {
      add(table.high[which]);
      if (!table.low.empty()) add(table.low[which]);
    }
    for (; first != end; ++first) add(first->x);
    cell(which) = from_bits<T>(round_to(acc, Element<T>::format, false));
  }

  // Cells with addends beside the tables.
  void finish_spilled() {
    std::vector<Spilled> all;
    for (const ExactTable& table : tables_)
      all.insert(all.end(), table.spilled.begin(), table.spilled.end());
    std::sort(all.begin(), all.end(),
              [](const Spilled& a, const Spilled& b) { return a.cell < b.cell; });
    for (size_t i = 0, end; i < all.size(); i = end) {
      for (end = i; end < all.size() && all[end].cell == all[i].cell;) ++end;
      finish_by_digits(all[i].cell, &all[i], all.data() + end);
    }
  }

  Scattering<T>& job_;
  const Range cells_;
  std::vector<ExactTable> tables_;
};

template <class T>
void exact_cells(Scattering<T>& job) {
  const int64_t n = job.job.n, cells = job.cells();
  // A table for every worker while they are small; else one, of which each has a part.
  constexpr int64_t kSharedCells = 1 << 18;
  if (cells < kSharedCells) {
    const int workers = table_workers(n, cells, job.threads);
    ExactCells<T> all(job, {0, cells}, workers);
    each_task((n + kPiece - 1) / kPiece, workers, [&](int worker, int64_t piece) {
      all.add(worker, piece * kPiece, std::min(n, (piece + 1) * kPiece));
    });
    if (job.bad() < 0) all.finish(workers_for(cells / kWorkerElements, job.threads));
  } else {
    const int workers = workers_for((n + cells) / kWorkerElements, job.threads);
    each_task(workers, workers, [&](int, int64_t part) {
      ExactCells<T> some(job, part_of(cells, part, workers), 1);
      some.add(0, 0, n);
      some.finish(1);
    });
  }
}

template <class T>
void sum_column_by_digits(T& cell, const T* source, const RowGroup& group) {
  Superacc acc;
  clear(acc);
  make_room(acc, 1);
  deposit(acc, value(cell));
  for (int64_t k = 0; k < group.count; ++k) {
    make_room(acc, 1);
    deposit(acc, value(source[group.order[k] * group.columns]));
  }
  cell = from_bits<T>(round_to(acc, Element<T>::format, false));
}

template <class T>
void exact_rows(Scattering<T>& job) {
  const bool kept = inexact_is_kept();
  each_group(job, [&](T* cells, const RowGroup& group) {
    double high[kRowWidth], low[kRowWidth];
    uint64_t bad[kRowWidth];
    // Kernels work on whole vectors.
    const int64_t width = (group.width + 7) / 8 * 8;
    for (int64_t c = 0; c < width; ++c) high[c] = c < group.width ? value(cells[c]) : 0.0;
    std::fill_n(low, width, 0.0);
    std::fill_n(bad, width, 0);
    job.kernels.add_group_exactly(high, low, bad, group, kept);
    bool plain = true;
    for (int64_t c = 0; c < group.width; ++c) plain &= low[c] == 0.0 && bad[c] == 0;
    if (plain) {
      for (int64_t c = 0; c < group.width; ++c) cells[c] = rounded<T>(high[c]);
      return;
    }
    for (int64_t c = 0; c < group.width; ++c) {
      if (bad[c] != 0)
        sum_column_by_digits(cells[c], static_cast<const T*>(group.source) + c, group);
      else
        cells[c] = from_bits<T>(round_pair(high[c], low[c], Element<T>::format));
    }
  });
  make_nans_equal(job);
}

}  // namespace

template <class T>
void scatter_exact(Scattering<T>& job) {
  if (job.job.columns == 1)
    exact_cells(job);
  else
    exact_rows(job);
}

template void scatter_exact<double>(Scattering<double>&);
template void scatter_exact<float>(Scattering<float>&);
template void scatter_exact<Bf16>(Scattering<Bf16>&);
template void scatter_exact<F16>(Scattering<F16>&);

}  // namespace ndp::scattering
