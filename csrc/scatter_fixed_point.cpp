// `fixed_point` of `scatter`: additions of integers.
#include <bit>
#include <cmath>

#include "scatter_parts.hpp"
#include "table.hpp"

namespace ndp::scattering {

namespace {

// Numbers as whole multiples of 2^-shift, so many bits that the sum of all of them, whatever their
// destinations, stays below 2^62.
template <class T>
class FixedPoint {
 public:
  explicit FixedPoint(Scattering<T>& job) : job_(job) {
    const int64_t pieces = (job.elements() + kPiece - 1) / kPiece;
    const int workers = workers_for(pieces / 4, job.threads);
    std::vector<double> most(std::max(workers, 1));
    std::atomic<bool> specials{false};
    const auto look = [&](const T* x, int64_t n, double& largest) {
      bool some = false;
      largest = std::max(largest, job.kernels.largest(x, n, &some));
      if (some) specials = true;
    };
    each_task(pieces, workers, [&](int worker, int64_t piece) {
      look(job.source(piece * kPiece), std::min(kPiece, job.elements() - piece * kPiece),
           most[worker]);
    });
    look(job.out(), job.cells(), most[0]);
    specials_ = specials;
    const double largest = *std::max_element(most.begin(), most.end());
    int exponent = 0;  // largest < 2^exponent
    std::frexp(largest, &exponent);
    // Every number is a multiple of 2^-1074: a finer unit would hold nothing more.
    const int count_bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(job.job.n) + 1));
    shift_ = std::min(62 - count_bits - exponent, 1074);
    // One power of two alone may lie outside of fp64.
    up_[0] = std::ldexp(1.0, shift_ / 2);
    up_[1] = std::ldexp(1.0, shift_ - shift_ / 2);
    down_[0] = std::ldexp(1.0, -(shift_ / 2));
    down_[1] = std::ldexp(1.0, -(shift_ - shift_ / 2));
  }

  void fix(const T* x, int64_t n, int64_t* fixed) const { job_.kernels.fix(x, n, up_, fixed); }

  // Whether infinities or NaNs have to be looked for.
  bool specials() const { return specials_; }

  // total * 2^-shift, rounded once.
  T rounded_total(int64_t total) const {
    const double high = static_cast<double>(total);
    const double low = static_cast<double>(total - static_cast<int64_t>(high));
    const double scaled = high * down_[0] * down_[1];
    if (std::fabs(scaled) > 0x1p-900 && std::fabs(scaled) < 0x1p1000) {
      if (low == 0.0) return rounded<T>(scaled);
      return from_bits<T>(round_pair(scaled, low * down_[0] * down_[1], Element<T>::format));
    }
    Superacc acc;
    clear(acc);
    make_room(acc, 1);
    if (total != 0)
      deposit_magnitude(acc, static_cast<unsigned __int128>(total < 0 ? -total : total), -shift_,
                        total < 0);
    return from_bits<T>(round_to(acc, Element<T>::format, false));
  }

 private:
  Scattering<T>& job_;
  bool specials_;
  int shift_;
  double up_[2], down_[2];
};

void note(Specials& specials, double x) {
  specials.nan |= x != x;
  specials.positive_infinity |= x == __builtin_inf();
  specials.negative_infinity |= x == -__builtin_inf();
}

bool any(const Specials& specials) {
  return specials.nan || specials.positive_infinity || specials.negative_infinity;
}

template <class T>
T special(const Specials& specials) {
  Superacc acc;
  clear(acc);
  acc.specials = specials;
  return from_bits<T>(round_to(acc, Element<T>::format, false));
}

template <class T>
bool is_negative_zero(T x) {
  return bits_of(x) == Element<T>::format.sign;
}

template <class T>
void fixed_point_rows(Scattering<T>& job) {
  const FixedPoint<T> fixed(job);
  each_group(job, [&](T* cells, const RowGroup& group) {
    const T* source = static_cast<const T*>(group.source);
    int64_t totals[kRowWidth], row[kRowWidth];
    fixed.fix(cells, group.width, totals);
    for (int64_t k = 0; k < group.count; ++k) {
      fixed.fix(source + group.order[k] * group.columns, group.width, row);
      for (int64_t c = 0; c < group.width; ++c) totals[c] += row[c];
    }
    for (int64_t c = 0; c < group.width; ++c) {
      Specials specials{};
      bool negative_zero = is_negative_zero(cells[c]);
      if (fixed.specials() || (negative_zero && totals[c] == 0)) {
        note(specials, value(cells[c]));
        for (int64_t k = 0; k < group.count; ++k) {
          const T x = source[group.order[k] * group.columns + c];
          note(specials, value(x));
          negative_zero = negative_zero && is_negative_zero(x);
        }
      }
      if (any(specials))
        cells[c] = special<T>(specials);
      else if (!negative_zero || totals[c] != 0)
        cells[c] = fixed.rounded_total(totals[c]);
    }
  });
  make_nans_equal(job);
}

template <class T>
void fixed_point_cells(Scattering<T>& job) {
  const FixedPoint<T> fixed(job);
  const int64_t n = job.job.n, cells = job.cells();
  const int workers = table_workers(n, cells, job.threads);
  std::vector<Table<int64_t>> tables(workers);
  each_task((n + kPiece - 1) / kPiece, workers, [&](int worker, int64_t piece) {
    Table<int64_t>& table = tables[worker];
    if (table.empty()) {
      table = Table<int64_t>(cells);
      std::fill_n(table.data(), cells, 0);
    }
    job.each_block(piece * kPiece, std::min(n, (piece + 1) * kPiece),
                   [&](const int64_t* index, int64_t first, int64_t count) {
                     constexpr int64_t kSome = 512;
                     int64_t terms[kSome];
                     for (int64_t i = 0; i < count; i += kSome) {
                       const int64_t some = std::min(kSome, count - i);
                       fixed.fix(job.source(first + i), some, terms);
                       for (int64_t j = 0; j < some; ++j) table[index[i + j]] += terms[j];
                     }
                   });
  });
  if (job.bad() >= 0) return;

  Table<int64_t> totals(cells);
  fixed.fix(job.out(), cells, totals.data());
  bool doubtful = false;  // a zero that may have to be -0
  for (int64_t cell = 0; cell < cells; ++cell) {
    for (const Table<int64_t>& table : tables)
      if (!table.empty()) totals[cell] += table[cell];
    doubtful |= totals[cell] == 0 && is_negative_zero(job.out()[cell]);
  }
  std::vector<Specials> specials(fixed.specials() ? cells : 0);
  std::vector<char> positive(doubtful ? cells : 0);
  if (fixed.specials() || doubtful)
    job.each_block(0, n, [&](const int64_t* index, int64_t first, int64_t count) {
      for (int64_t i = 0; i < count; ++i) {
        const T x = *job.source(first + i);
        if (fixed.specials()) note(specials[index[i]], value(x));
        if (doubtful) positive[index[i]] |= !is_negative_zero(x);
      }
    });
  for (int64_t cell = 0; cell < cells; ++cell) {
    T& x = job.out()[cell];
    if (fixed.specials()) note(specials[cell], value(x));
    if (fixed.specials() && any(specials[cell]))
      x = special<T>(specials[cell]);
    else if (totals[cell] != 0 || !is_negative_zero(x) || positive[cell])
      x = fixed.rounded_total(totals[cell]);
  }
}

}  // namespace

template <class T>
void scatter_fixed_point(Scattering<T>& job) {
  if (job.job.columns == 1)
    fixed_point_cells(job);
  else
    fixed_point_rows(job);
}

template void scatter_fixed_point<double>(Scattering<double>&);
template void scatter_fixed_point<float>(Scattering<float>&);
template void scatter_fixed_point<Bf16>(Scattering<Bf16>&);
template void scatter_fixed_point<F16>(Scattering<F16>&);

}  // namespace ndp::scattering
