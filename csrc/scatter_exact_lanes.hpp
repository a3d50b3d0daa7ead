// The loops of `exact`. Included by scatter_isa.cpp inside the namespace of an ISA level, after the
// loops of `ordered`.

namespace {

template <class T>
int64_t add_exactly(double* high, const int64_t* index, const void* data, int64_t n, int64_t cells,
                    bool far) {
  const T* source = static_cast<const T*>(data);
  double before[kExactCells], room[kExactCells];
  for (int64_t i = 0; i < n; i += kExactCells) {
    const int64_t count = n - i < kExactCells ? n - i : kExactCells;
    const int64_t* at = index + i;
    const double* x = in_doubles(source + i, count, room);
    const auto step = [&](int64_t j) __attribute__((always_inline)) {
      double& cell = high[at[j]];
      before[j] = cell;
      cell += x[j];
    };
    clear_inexact();
    const int64_t added =
        far ? for_cells<true>(high, at, source + i, count, n - i, cells, step)
            : for_cells<false>(high, at, source + i, count, n - i, cells, step);
    if (inexact_after(high)) {
      for (int64_t j = added - 1; j >= 0; --j) high[at[j]] = before[j];
      return i;
    }
    if (added < count) return i + added;
  }
  return n;
}

// high + low + x, with the error of the first addition found (Knuth) and put into the second, which
// is checked: it was exact where the sum less either operand gives the other. A Number is a double
// or a vector of them.
template <class Number>
struct Pair {
  Number high, low, error;

  NDP_INLINE Pair(Number to_high, Number to_low, Number x) {
    high = to_high + x;
    const Number of_x = high - to_high;
    error = (to_high - (high - of_x)) + (x - of_x);
    low = to_low + error;
  }
};

template <class T>
int64_t add_pairs(double* high, double* low, const int64_t* index, const void* data, int64_t n,
                  Spilled* spilled) {
  const T* source = static_cast<const T*>(data);
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double x = value(source[i]);
    const int64_t at = index[i];
    const Pair<double> sum(high[at], low[at], x);
    // Of an infinity or a NaN, come or become, nothing compares equal.
    if (sum.low - low[at] == sum.error && sum.low - sum.error == low[at]) {
      high[at] = sum.high;
      low[at] = sum.low;
    } else {
      spilled[count].cell = at;
      spilled[count++].x = x;
    }
  }
  return count;
}

template <class T>
NDP_INLINE Doubles some_doubles(const T* x, int64_t n) {
  if (n >= kDoubles) return doubles(x);
  T padded[kDoubles] = {};
  std::memcpy(padded, x, n * sizeof(T));
  return doubles(padded);
}

// Columns beyond the width are added to as well, in whatever order; nobody looks at them.
template <class T>
void add_group_exactly(double* high, double* low, uint64_t* bad, const RowGroup& group,
                       bool inexact_is_kept) {
  constexpr int64_t kRows = 32;  // checked at a time
  double before[kRowWidth];
  const size_t bytes = (group.width + 7) / 8 * 8 * sizeof *before;
  for (int64_t first = 0; first < group.count; first += kRows) {
    const int64_t end = group.count - first < kRows ? group.count : first + kRows;
    if (sizeof(T) < sizeof(double) && inexact_is_kept) {
      std::memcpy(before, high, bytes);
      clear_inexact();
      for (int64_t k = first; k < end; ++k) {
        const T* x = row_of<T>(group, k);
        for (int64_t c = 0; c < group.width; c += kDoubles) {
          const Doubles sum = load<Doubles>(high + c) + some_doubles(x + c, group.width - c);
          std::memcpy(high + c, &sum, sizeof sum);
        }
      }
      if (!inexact_after(high)) continue;
      std::memcpy(high, before, bytes);
    }
    for (int64_t k = first; k < end; ++k) {
      const T* x = row_of<T>(group, k);
      for (int64_t c = 0; c < group.width; c += kDoubles) {
        const Doubles to_low = load<Doubles>(low + c);
        const Pair<Doubles> sum(load<Doubles>(high + c), to_low,
                                some_doubles(x + c, group.width - c));
        const Words wrong = (Words)(sum.low - to_low != sum.error) |
                            (Words)(sum.low - sum.error != to_low) | load<Words>(bad + c);
        std::memcpy(high + c, &sum.high, sizeof sum.high);
        std::memcpy(low + c, &sum.low, sizeof sum.low);
        std::memcpy(bad + c, &wrong, sizeof wrong);
      }
    }
  }
}

}  // namespace
