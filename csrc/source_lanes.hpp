// Sums of addends that are computed from what lies in memory: products, squares, deviations. Included
// inside the namespace of the level, after sum_lanes.hpp.
//
// A source knows addend i as
//   wide(i)         kDoubles of them from i on, in fp64;   wide_one(i)     that one alone
//   rounded(i)      a vector of Partial from i on;         rounded_one(i)  that one alone
// Partial is the type that fixed_order adds in. Not every source has both.

namespace {

// ---- fixed order: lane j adds addends j, j + 64, j + 128, ... in turn; lanes fold in halves.

template <class Source>
typename Source::Partial add_in_lanes(const Source& source, int64_t n) {
  using Partial = typename Source::Partial;
  using Vector = decltype(source.rounded(0));
  constexpr int kWidth = kBytes / sizeof(Partial);
  // Only as many lanes at a time as leave the registers room; each pass reads its own columns.
  constexpr int kVectors = kSumLanes / kWidth < 8 ? kSumLanes / kWidth : 8;
  Partial lane[kSumLanes];
  for (Partial& sum : lane) sum = -Partial{0};  // -0.0 plus x is x, for every x
  const int64_t rows = n / kSumLanes * kSumLanes;
  for (int first = 0; first < kSumLanes; first += kVectors * kWidth) {
    Vector sums[kVectors];
    std::memcpy(sums, lane + first, sizeof sums);
    for (int64_t i = first; i < rows; i += kSumLanes) {
#pragma GCC unroll 8
      for (int k = 0; k < kVectors; ++k) sums[k] += source.rounded(i + k * kWidth);
    }
    std::memcpy(lane + first, sums, sizeof sums);
  }
  for (int64_t i = rows; i < n; ++i) lane[i - rows] += source.rounded_one(i);
  for (int half = kSumLanes / 2; half >= 1; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  return lane[0];
}

// ---- exact

// Calls body(k -> addends) for rows of kSumLanes addends, k counting vectors; zeros fill the last.
template <class Source, class Body>
NDP_INLINE void for_addends(const Source& source, int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    body([&](int k) __attribute__((always_inline)) { return source.wide(i + k * kDoubles); });
  if (i < n) {
    double row[kSumLanes] = {};
    for (int64_t j = i; j < n; ++j) row[j - i] = source.wide_one(j);
    body([&](int k) __attribute__((always_inline)) { return doubles(row + k * kDoubles); });
  }
}

// The largest |addend| as a bit pattern; NaN lies above infinity.
template <class Source>
uint64_t largest_addend(const Source& source, int64_t n) {
  typedef int64_t Integers __attribute__((vector_size(kBytes)));
  Integers most{};
  for_addends(source, n, [&](const auto& addends) __attribute__((always_inline)) {
#pragma GCC unroll 64
    for (int k = 0; k < kSumLanes / kDoubles; ++k) {
      const Integers bits = (Integers)addends(k) & 0x7fffffffffffffff;
      most = bits > most ? bits : most;
    }
  });
  int64_t found = 0;
  for (int lane = 0; lane < kDoubles; ++lane) found = most[lane] > found ? most[lane] : found;
  return static_cast<uint64_t>(found);
}

constexpr uint64_t kInfinityBits = 0x7ff0000000000000;

// Addends that are summed, checked and, where the check fails, summed again from cache.
constexpr int64_t kAddendBlock = 4096;
// log2 of those that meet in one lane.
constexpr int kAddendLaneBits =
    std::bit_width(static_cast<unsigned>(kAddendBlock / kDoubles)) - 1;

constexpr int unit_of_part(int exponent, int part) {
  return exponent + kAddendLaneBits - 51 - part * (52 - kAddendLaneBits);
}

// The error-free splits of sum_isa.cpp: part i of every addend is its nearest multiple of
// 2^unit_of_part(exponent, i), added to a register whose last bit cannot move. On success
// totals[i] * 2^unit is what the parts i sum up to, exactly, and |totals[i]| <= 2^51 * kDoubles.
// False where an addend was too large for the first part or left a rest after the last.
template <int kParts, class Source>
NDP_INLINE bool split_addends(const Source& source, int64_t n, int exponent,
                              int64_t (&totals)[kParts]) {
  if (exponent + kAddendLaneBits + 1 > 1022 || unit_of_part(exponent, kParts - 1) < -1022)
    return false;
  constexpr int kSets = kDoubles == 8 ? 4 : 2;
  Doubles start[kParts], sums[kSets][kParts];
  for (int i = 0; i < kParts; ++i) {
    const int biased = unit_of_part(exponent, i) + 52 + 1023;
    start[i] = spread(1.5 * __builtin_bit_cast(double, static_cast<uint64_t>(biased) << 52));
    for (auto& set : sums) set[i] = start[i];
  }
  Words left_binade{}, left_rest{};
  for_addends(source, n, [&](const auto& addends) __attribute__((always_inline)) {
#pragma GCC unroll 64
    for (int k = 0; k < kSumLanes / kDoubles; ++k) {
      Doubles rest = addends(k);
#pragma GCC unroll 4
      for (int i = 0; i < kParts; ++i) {
        Doubles& sum = sums[k % kSets][i];
        const Doubles next = sum + rest;
        rest -= next - sum;
        sum = next;
        if (i + 1 < kParts || kParts == 1) left_binade |= (Words)next ^ (Words)start[i];
      }
      left_rest |= (Words)rest;
    }
  });
  uint64_t bad = 0;
  for (int lane = 0; lane < kDoubles; ++lane)
    bad |= (left_binade[lane] & 0xfff0000000000000) | (left_rest[lane] & 0x7fffffffffffffff);
  if (bad != 0) return false;
  for (int i = 0; i < kParts; ++i) {
    // The registers' last bits are one unit, so that the difference of their patterns counts units.
    totals[i] = 0;
    for (auto& set : sums)
      for (int lane = 0; lane < kDoubles; ++lane)
        totals[i] += static_cast<int64_t>(((Words)set[i])[lane] - ((Words)start[i])[lane]);
  }
  return true;
}

}  // namespace
