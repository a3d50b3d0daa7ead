// Products as a source of addends, and their exact sums. Included inside the namespace of the level,
// after source_lanes.hpp.

namespace {

NDP_INLINE int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

template <class T>
struct Products {
  using Partial = typename Traits<T>::Partial;
  const T* a;
  const T* b;
  // Of the formats narrower than fp64 this is exact, and neither overflows nor underflows.
  NDP_INLINE Doubles wide(int64_t i) const { return doubles(a + i) * doubles(b + i); }
  NDP_INLINE double wide_one(int64_t i) const { return value(a[i]) * value(b[i]); }
  NDP_INLINE auto rounded(int64_t i) const { return partials(a + i) * partials(b + i); }
  NDP_INLINE Partial rounded_one(int64_t i) const {
    return static_cast<Partial>(value(a[i])) * static_cast<Partial>(value(b[i]));
  }
};

// What fl(a b) leaves of a b, by Dekker and Veltkamp: exact for operands within the bounds below.
struct Rests {
  const double* a;
  const double* b;
  template <class Number>
  NDP_INLINE static Number rest(const Number& x, const Number& y) {
    const Number x_spread = x * 0x1.0000002p27, y_spread = y * 0x1.0000002p27;
    const Number x_high = x_spread - (x_spread - x), y_high = y_spread - (y_spread - y);
    const Number x_low = x - x_high, y_low = y - y_high;
    return ((x_high * y_high - x * y) + x_high * y_low + x_low * y_high) + x_low * y_low;
  }
  NDP_INLINE Doubles wide(int64_t i) const { return rest(doubles(a + i), doubles(b + i)); }
  NDP_INLINE double wide_one(int64_t i) const { return rest(a[i], b[i]); }
};

// Whether every element is 0 or between 2^-450 and 2^450.
bool is_moderate(const double* x, int64_t n) {
  const uint64_t least = uint64_t{1023 - 450} << 52, span = uint64_t{900} << 52;
  uint64_t outside = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint64_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7fffffffffffffff;
    outside |= static_cast<uint64_t>(bits - least > span) & static_cast<uint64_t>(bits != 0);
  }
  return outside == 0;
}

template <int kParts, class Source>
bool add_split(const Source& source, int64_t n, int exponent, WideAcc& acc) {
  int64_t totals[kParts];
  if (!split_addends<kParts>(source, n, exponent, totals)) return false;
  make_room(acc, kParts);
  for (int i = 0; i < kParts; ++i) {
    const bool negative = totals[i] < 0;
    const uint64_t magnitude = static_cast<uint64_t>(totals[i]);
    deposit_magnitude(acc, negative ? -magnitude : magnitude, unit_of_part(exponent, i), negative);
  }
  return true;
}

template <int kMost, class Source>
bool add_parts(const Source& source, int64_t n, const Splits& splits, WideAcc& acc) {
  if (splits.parts == 2) return add_split<2>(source, n, splits.exponent, acc);
  if (splits.parts == 3) return add_split<3>(source, n, splits.exponent, acc);
  return kMost == 4 && add_split<4>(source, n, splits.exponent, acc);
}

// A block as the last one was split, or at its own exponent in as few parts as will do. False, and
// nothing added, where even `kMost` parts do not hold it.
template <int kMost, class Source>
bool add_splits(const Source& source, int64_t n, Splits& splits, WideAcc& acc) {
  constexpr int kBlocksAsBefore = 16;
  if (splits.idle > 0) {
    --splits.idle;
    return false;
  }
  if (splits.parts > 2 && ++splits.blocks == kBlocksAsBefore) {
    splits.parts = 2;
    splits.blocks = 0;
  }
  if (add_parts<kMost>(source, n, splits, acc)) return true;
  const uint64_t most = largest_addend(source, n);
  if (most == 0) return true;
  if (most < kInfinityBits) {
    splits.exponent = exponent_above<double>(most);
    for (splits.parts = 2; splits.parts <= kMost; ++splits.parts)
      if (add_parts<kMost>(source, n, splits, acc)) return true;
  }
  splits.parts = 2;
  splits.idle = kBlocksAsBefore;
  return false;
}

template <class T>
void exact_block(const Products<T>& source, int64_t n, ProductSum& sum) {
  if (add_splits<3>(source, n, sum.high, sum.acc)) return;
  make_room(sum.acc, n);
  for (int64_t i = 0; i < n; ++i) deposit(sum.acc, source.wide_one(i));
}

// Rests that do not fit are added one by one; where products do not, both are.
void exact_block(const Products<double>& source, int64_t n, ProductSum& sum) {
  make_room(sum.acc, 2 * n);
  if (!is_moderate(source.a, n) || !is_moderate(source.b, n) ||
      !add_splits<4>(source, n, sum.high, sum.acc)) {
    for (int64_t i = 0; i < n; ++i) deposit_product(sum.acc, source.a[i], source.b[i]);
    return;
  }
  const Rests rests{source.a, source.b};
  if (!add_splits<4>(rests, n, sum.low, sum.acc))
    for (int64_t i = 0; i < n; ++i) deposit(sum.acc, rests.wide_one(i));
}

}  // namespace
