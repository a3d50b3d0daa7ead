// Exact sums of columns, a small block of rows at a time, each block checked to have been exact.
// Included inside the namespace of an ISA level, after row_lanes.hpp; needs ColumnSum.
//
// A block has kSumLanes columns, its rows lie kSumLanes elements apart, and it has at most
// kExactRows rows. Only the first `wide` columns are added to the sums.

namespace {

constexpr int kColumnVectors = kSumLanes / kDoubles;

NDP_INLINE void deposit_columns(const Doubles* totals, int64_t wide, ColumnSum* sums) {
  for (int64_t j = 0; j < wide; ++j) {
    make_room(sums[j].acc, 1);
    deposit(sums[j].acc, totals[j / kDoubles][j % kDoubles]);
  }
}

// Plain additions of widened terms: exact if the processor says that none was rounded.
NDP_INLINE bool add_columns_plainly(const float* x, int64_t rows, int64_t wide, ColumnSum* sums) {
  Doubles totals[kColumnVectors] = {};
  clear_inexact();
  for (int64_t row = 0; row < rows; ++row) {
#pragma GCC unroll 64
    for (int k = 0; k < kColumnVectors; ++k)
      totals[k] += doubles(x + row * kSumLanes + k * kDoubles);
  }
  if (inexact_after(totals)) return false;
  deposit_columns(totals, wide, sums);
  return true;
}

// Error-free splits in kParts parts, as add_split of sum_isa.cpp explains them. |x| < 2^exponent
// for all terms, so that no register leaves its binade; that no rest is left is checked.
template <int kParts, class P>
NDP_INLINE bool add_columns_split(const P* x, int64_t rows, int64_t wide, int exponent,
                                  ColumnSum* sums) {
  constexpr int kRowBits = 6;
  static_assert(kExactRows == 1 << kRowBits);
  constexpr int kSpan = (kParts - 1) * (52 - kRowBits) + 51 - kRowBits;
  if (exponent < kSpan - 1074) exponent = kSpan - 1074;
  if (exponent + kRowBits + 1 > 1022) return false;
  Doubles start[kParts], totals[kParts][kColumnVectors];
  for (int part = 0; part < kParts; ++part) {
    const int unit = exponent + kRowBits - 51 - part * (52 - kRowBits);
    start[part] =
        spread(1.5 * __builtin_bit_cast(double, static_cast<uint64_t>(unit + 52 + 1023) << 52));
  }
  Words left{};
  for (int k = 0; k < kColumnVectors; ++k) {
    Doubles sum[kParts];
    for (int part = 0; part < kParts; ++part) sum[part] = start[part];
    for (int64_t row = 0; row < rows; ++row) {
      Doubles rest = doubles(x + row * kSumLanes + k * kDoubles);
#pragma GCC unroll 3
      for (int part = 0; part < kParts; ++part) {
        const Doubles next = sum[part] + rest;
        rest -= next - sum[part];
        sum[part] = next;
      }
      left |= (Words)rest;
    }
    for (int part = 0; part < kParts; ++part) totals[part][k] = sum[part] - start[part];
  }
  uint64_t any = 0;
  for (int lane = 0; lane < kDoubles; ++lane) any |= left[lane] & 0x7fffffffffffffff;
  if (any != 0) return false;
  for (auto& of_part : totals) deposit_columns(of_part, wide, sums);
  return true;
}

template <class P>
void add_columns(const P* x, int64_t rows, int64_t wide, ColumnSum* sums) {
  using Bits = typename Traits<P>::Bits;
  Bits others[kSumLanes] = {};
  for (int64_t row = 0; row < rows; ++row)
    for (int j = 0; j < kSumLanes; ++j)
      others[j] |= __builtin_bit_cast(Bits, x[row * kSumLanes + j]) ^ (Traits<P>::magnitude + 1);
  for (int64_t j = 0; j < wide; ++j) sums[j].other |= others[j] != 0;

  if constexpr (sizeof(P) == sizeof(float))
    if (add_columns_plainly(x, rows, wide, sums)) return;
  const Bits most = largest(x, rows * kSumLanes);
  if (most < Traits<P>::infinity) {
    const int exponent = exponent_above<P>(most);
    if (add_columns_split<2>(x, rows, wide, exponent, sums)) return;
    if (add_columns_split<3>(x, rows, wide, exponent, sums)) return;
  }
  for (int64_t j = 0; j < wide; ++j) {
    make_room(sums[j].acc, rows);
    for (int64_t row = 0; row < rows; ++row) deposit(sums[j].acc, value(x[row * kSumLanes + j]));
  }
}

}  // namespace
