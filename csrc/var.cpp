// Which kernel runs, on how many threads, and how their results come together.
#include "var.hpp"

#include <vector>

#include "isa.hpp"
#include "formats.hpp"
#include "levels.hpp"
#include "moments.hpp"
#include "workers.hpp"

namespace ndp {

NDP_KERNELS(VarKernels, var_kernels)

namespace {

// What a worker takes at a time, in elements: of a long row whole chunks and blocks, else rows.
constexpr int64_t kPiece = int64_t{1} << 16;
static_assert(kPiece % kSumChunk == 0);

struct Job {
  Dtype dtype;
  VarKernels kernels;
  const Format& format;
  const char* x;
  int64_t rows;
  int64_t n;
  int64_t correction;
  int threads;
  char* var;
  char* mean;

  int64_t bytes() const { return element_bytes(dtype); }
  const void* at(int64_t row, int64_t element) const { return x + (row * n + element) * bytes(); }
  int workers() const { return workers_for(rows * n / kPiece, threads); }
  int64_t rows_at_once() const { return std::max<int64_t>(kPiece / std::max<int64_t>(n, 1), 1); }
  // Whether rows are too few to go round, so that each is shared out.
  bool by_pieces() const { return rows < 2 * workers() && n >= 2 * kPiece; }
  void store(int64_t row, uint64_t of_var, uint64_t of_mean) const {
    std::memcpy(var + row * bytes(), &of_var, bytes());  // little-endian, as all it is built for
    std::memcpy(mean + row * bytes(), &of_mean, bytes());
  }
};

// ---- in floating point: parts of a row, each in 64 lanes; the parts' sums as neighbours.

struct Parts {
  int64_t n;
  int64_t count;
  int64_t length;  // of each but the last; 0 where the row is shared out evenly instead

  int64_t begin(int64_t part) const {
    return length != 0 ? std::min(part * length, n)
                       : static_cast<int64_t>(static_cast<__int128>(n) * part / count);
  }
};

template <class Partial>
struct InFloats {
  const Job& job;
  const Parts parts;

  Partial sum(int64_t row, int64_t part) const {
    Partial result;
    const int64_t begin = parts.begin(part);
    job.kernels.sum(job.at(row, begin), parts.begin(part + 1) - begin, &result);
    return result;
  }
  Partial squares(int64_t row, int64_t part, Partial mean) const {
    Partial result;
    const int64_t begin = parts.begin(part);
    job.kernels.squares(job.at(row, begin), parts.begin(part + 1) - begin, &mean, &result);
    return result;
  }
  Partial mean_of(Partial* sums) const {
    add_in_rounds(parts.count, sums);
    return sums[0] / static_cast<Partial>(job.n);
  }
  void finish(int64_t row, Partial* of_squares, Partial mean) const {
    const int64_t freedom = job.n > job.correction ? job.n - job.correction : 0;
    add_in_rounds(parts.count, of_squares);
    const Partial var = of_squares[0] / static_cast<Partial>(freedom);
    job.store(row, round_double(var, job.format), round_double(mean, job.format));
  }

  void run() const {
    if (job.by_pieces()) {
      for (int64_t row = 0; row < job.rows; ++row) run_shared(row);
      return;
    }
    share_out(job.rows, job.rows_at_once(), job.workers(), [&](int, int64_t first, int64_t count) {
      std::vector<Partial> partials(parts.count);
      for (int64_t row = first; row < first + count; ++row) {
        for (int64_t part = 0; part < parts.count; ++part) partials[part] = sum(row, part);
        const Partial mean = mean_of(partials.data());
        for (int64_t part = 0; part < parts.count; ++part)
          partials[part] = squares(row, part, mean);
        finish(row, partials.data(), mean);
      }
    });
  }

  void run_shared(int64_t row) const {
    std::vector<Partial> partials(parts.count);
    const int64_t at_once =
        std::max<int64_t>(kPiece / std::max<int64_t>(parts.begin(1), 1), 1);
    share_out(parts.count, at_once, job.workers(), [&](int, int64_t first, int64_t count) {
      for (int64_t part = first; part < first + count; ++part) partials[part] = sum(row, part);
    });
    const DefaultFloatMode mode;
    const Partial mean = mean_of(partials.data());
    share_out(parts.count, at_once, job.workers(), [&](int, int64_t first, int64_t count) {
      for (int64_t part = first; part < first + count; ++part)
        partials[part] = squares(row, part, mean);
    });
    finish(row, partials.data(), mean);
  }
};

void var_in_floats(const Job& job, const Parts& parts) {
  if (job.dtype == Dtype::float64)
    InFloats<double>{job, parts}.run();
  else
    InFloats<float>{job, parts}.run();
}

// ---- exact

bool all_negative_zero(const Job& job, int64_t row) {
  for (int64_t i = 0; i < job.n; ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, job.at(row, i), job.bytes());
    if (bits != job.format.sign) return false;
  }
  return true;
}

void clear(Moments& sums) {
  clear(sums.sum);
  clear(sums.squares);
}

void finish_exactly(const Job& job, int64_t row, Moments& sums) {
  uint64_t var, mean;
  finish(sums, job.n, job.correction, job.format, var, mean);
  if (mean == 0 && all_negative_zero(job, row)) mean = job.format.sign;
  job.store(row, var, mean);
}

void var_exact_by_pieces(const Job& job, int64_t row) {
  std::vector<Moments> sums(job.workers());
  for (Moments& of_worker : sums) clear(of_worker);
  share_out(job.n, kPiece, job.workers(), [&](int worker, int64_t first, int64_t count) {
    job.kernels.exact(job.at(row, first), count, sums[worker]);
  });
  for (size_t worker = 1; worker < sums.size(); ++worker) {
    merge(sums[0].sum.acc, sums[worker].sum.acc);
    merge(sums[0].squares.acc, sums[worker].squares.acc);
  }
  finish_exactly(job, row, sums[0]);
}

// How the rows before were added, which is how a row is tried first.
struct Habits {
  int exponent;
  Moments sums;
};

void var_exact_row(const Job& job, int64_t row, Habits& habits) {
  if (job.kernels.quick != nullptr && job.n <= kQuickRow) {
    QuickMoments found;
    uint64_t var, mean;
    if (job.kernels.quick(job.at(row, 0), job.n, habits.exponent, found) &&
        finish(found, job.n, job.correction, job.format, var, mean)) {
      if (mean == 0 && all_negative_zero(job, row)) mean = job.format.sign;
      return job.store(row, var, mean);
    }
  }
  clear(habits.sums.sum.acc);
  clear(habits.sums.squares.acc);
  job.kernels.exact(job.at(row, 0), job.n, habits.sums);
  finish_exactly(job, row, habits.sums);
}

void var_exact(const Job& job) {
  if (job.n == 0) {
    for (int64_t row = 0; row < job.rows; ++row)
      job.store(row, job.format.quiet_nan, job.format.quiet_nan);
  } else if (job.by_pieces()) {
    for (int64_t row = 0; row < job.rows; ++row) var_exact_by_pieces(job, row);
  } else {
    share_out(job.rows, job.rows_at_once(), job.workers(), [&](int, int64_t first, int64_t count) {
      Habits habits;
      habits.exponent = 0;
      clear(habits.sums);
      for (int64_t row = first; row < first + count; ++row) var_exact_row(job, row, habits);
    });
  }
}

}  // namespace

void var_mean(Dtype dtype, VarVariant variant, const void* x, int64_t rows, int64_t n,
              int64_t correction, int threads, const std::string& isa, void* var, void* mean) {
  const Format& format = format_of(dtype, "var");
  const Job job{dtype,
                var_kernels(choose_isa(isa), dtype),
                format,
                static_cast<const char*>(x),
                rows,
                n,
                correction,
                threads,
                static_cast<char*>(var),
                static_cast<char*>(mean)};
  switch (variant) {
    case VarVariant::two_pass:
      return var_in_floats(job, {n, workers_for(n / kSumChunk, threads), 0});
    case VarVariant::fixed_order:
      return var_in_floats(
          job, {n, std::max<int64_t>((n + kSumChunk - 1) / kSumChunk, 1), kSumChunk});
    default:
      return var_exact(job);
  }
}

}  // namespace ndp
