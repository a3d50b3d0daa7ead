// One chunk of a comparison, compiled once for each ISA level.
#include <cstring>
#include <type_traits>

#include "compare.hpp"
#include "simd.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined
#if NDP_VECTOR_BYTES == 64
#pragma GCC target("avx512cd")  // leading zeros; isa.cpp asks for it with the others
#endif

namespace ndp::NDP_ISA {

#include "compare_lanes.hpp"

namespace {

// Floats between a and b lane by lane, whatever they are.
template <class Kind>
inline __attribute__((always_inline)) typename Kind::Unsigned apart(
    const typename Kind::Signed& a, const typename Kind::Signed& b) {
  const typename Kind::Signed place_a = Kind::place(a), place_b = Kind::place(b);
  const typename Kind::Signed upper = place_a > place_b ? place_a : place_b;
  const typename Kind::Signed lower = place_a > place_b ? place_b : place_a;
  return (typename Kind::Unsigned)upper - (typename Kind::Unsigned)lower;
}

// Eight lanes in all, at every level.
constexpr int kGroups = 8 / kLanes;
// Vectors at once, of which the last group has whole lanes.
constexpr int kBlock = 16;

// sum += a * b. Fused where the product of two elements is a double anyway: the same bits then.
template <class Kind>
inline __attribute__((always_inline)) void add_product(f64xn& sum, const f64xn& a, const f64xn& b) {
#if NDP_VECTOR_BYTES == 64 && defined(__FMA__)
  if constexpr (Kind::exact_products) {
    sum = (f64xn)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum);
    return;
  }
#elif NDP_VECTOR_BYTES == 32 && defined(__FMA__)
  if constexpr (Kind::exact_products) {
    sum = (f64xn)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)sum);
    return;
  }
#endif
  sum += a * b;
}

// Counts, for every k, how many distances are 2^k or more. Each distance is smeared downwards from
// its highest bit; the counts are kept as binary digits, one vector a digit, and a carry-save tree
// adds sixteen vectors to them in about as many steps.
template <class Unsigned>
struct Widths {
  static constexpr int kBits = sizeof(Unsigned) / kLanes * 8;
  static constexpr int kLow = 4;    // digits that the tree adds to
  static constexpr int kHigh = 10;  // and those it carries into: 2^14 vectors in all
  Unsigned digits[kLow + kHigh]{};

  // Returns the sum's digit, leaves the carry.
  static inline __attribute__((always_inline)) Unsigned carry(Unsigned& sum, const Unsigned& a,
                                                              const Unsigned& b) {
#if NDP_VECTOR_BYTES == 64
    // One instruction each: the majority of three bits, and their parity.
    if constexpr (sizeof(Unsigned) == 64) {
      const __m512i x = (__m512i)sum, y = (__m512i)a, z = (__m512i)b;
      sum = (Unsigned)_mm512_ternarylogic_epi64(x, y, z, 0x96);
      return (Unsigned)_mm512_ternarylogic_epi64(x, y, z, 0xe8);
    } else {
      const __m256i x = (__m256i)sum, y = (__m256i)a, z = (__m256i)b;
      sum = (Unsigned)_mm256_ternarylogic_epi64(x, y, z, 0x96);
      return (Unsigned)_mm256_ternarylogic_epi64(x, y, z, 0xe8);
    }
#else
    const Unsigned either = sum ^ a;
    const Unsigned up = (sum & a) | (either & b);
    sum = either ^ b;
    return up;
#endif
  }

  inline __attribute__((always_inline)) void add(Unsigned (&distances)[kBlock]) {
#pragma GCC unroll 16
    for (Unsigned& d : distances) d = smeared(d);
    Unsigned up[kBlock / 2];
#pragma GCC unroll 4
    for (int digit = 0, count = kBlock; digit < kLow; ++digit, count /= 2) {
      const Unsigned* from = digit == 0 ? distances : up;
#pragma GCC unroll 8
      for (int i = 0; i < count / 2; ++i)
        up[i] = carry(digits[digit], from[2 * i], from[2 * i + 1]);
    }
    Unsigned carried = up[0];
#pragma GCC unroll 10
    for (int digit = kLow; digit < kLow + kHigh; ++digit) {
      const Unsigned next = digits[digit] & carried;
      digits[digit] ^= carried;
      carried = next;
    }
  }

  // counts[k] of distances that are 2^k or more, of which there are at most kCompareChunk.
  void total(uint32_t (&counts)[kBits]) const {
    for (int digit = 0; digit < kLow + kHigh; ++digit)
      for (int lane = 0; lane < kLanes; ++lane)
        for (int low = 0; low < kBits; low += 32) {
          const auto word = static_cast<uint32_t>(digits[digit][lane] >> low);
          for (int k = 0; k < 32; ++k) counts[low + k] += (word >> k & 1) << digit;
        }
  }
};

struct NoWidths {};

// What is found in one chunk. Sums that are not `careful` take it that no difference is NaN;
// compare_kind sees where that was wrong.
template <class Kind, bool careful>
struct Sums {
  typename Kind::Signed different{};
  typename Kind::Signed uncountable{};
  typename Kind::Unsigned furthest{};
  std::conditional_t<Kind::has_ulp, Widths<typename Kind::Unsigned>, NoWidths> widths;
  f64xn squares_difference[kGroups]{};
  f64xn squares[kGroups]{};
  f64xn squares_other[kGroups]{};
  f64xn dot[kGroups]{};

  // Counts a vector of elements; returns the ulp distances, where there are any.
  inline __attribute__((always_inline)) typename Kind::Unsigned count(const unsigned char* a,
                                                                      const unsigned char* b) {
    const typename Kind::Signed bits_a = Kind::bits(a);
    const typename Kind::Signed bits_b = Kind::bits(b);
    typename Kind::Unsigned distance{};
    if constexpr (careful) {
      const typename Kind::Signed differs = bits_a != bits_b;
      different -= differs;
      if constexpr (Kind::has_ulp) {
        const typename Kind::Signed nan = (Kind::nan(bits_a) | Kind::nan(bits_b)) & differs;
        distance = apart<Kind>(bits_a, bits_b) & (typename Kind::Unsigned)~nan;
        uncountable -= nan;
      }
    } else {
      distance = apart<Kind>(bits_a, bits_b);
    }
    if constexpr (Kind::has_ulp) {
      furthest = distance > furthest ? distance : furthest;
      // The one distance that is counted but stands for those that cannot be.
      if constexpr (Kind::size == 8)
        distance -= (typename Kind::Unsigned)(distance == static_cast<uint64_t>(kUlpMax));
    }
    return distance;
  }

  // Adds the products of a vector of elements, of which those from `kept` on are padding.
  inline __attribute__((always_inline)) void multiply(int group, const unsigned char* a,
                                                      const unsigned char* b, int kept) {
    const typename Kind::Signed bits_a = Kind::bits(a);
    const typename Kind::Signed bits_b = Kind::bits(b);
    f64xn value_a = Kind::value(bits_a), value_b = Kind::value(bits_b);
    f64xn gap = value_a - value_b;
    if constexpr (careful) gap = (f64xn)((i64xn)gap & wide_mask(bits_a != bits_b));
    if (kept < kLanes)
      for (int lane = kept < 0 ? 0 : kept; lane < kLanes; ++lane) value_a[lane] = value_b[lane] = 0.0;
    squares_difference[group] += gap * gap;
    add_product<Kind>(squares[group], value_a, value_a);
    add_product<Kind>(squares_other[group], value_b, value_b);
    add_product<Kind>(dot[group], value_a, value_b);
  }

  // A block of which `kept` elements are kept, the others being padding. The whole numbers first,
  // then the products: both at once need more registers than there are.
  inline __attribute__((always_inline)) void block(const unsigned char* a, const unsigned char* b,
                                                   int kept) {
    constexpr int step = kLanes * Kind::size;
    typename Kind::Unsigned distances[kBlock];
#pragma GCC unroll 16
    for (int vector = 0; vector < kBlock; ++vector)
      distances[vector] = count(a + vector * step, b + vector * step);
    if constexpr (Kind::has_ulp) widths.add(distances);
#pragma GCC unroll 16
    for (int vector = 0; vector < kBlock; ++vector)
      multiply(vector % kGroups, a + vector * step, b + vector * step, kept - vector * kLanes);
  }

  // A block that has the same bits in both: as long as a change is small, most have.
  inline __attribute__((always_inline)) void equal(const unsigned char* a) {
#pragma GCC unroll 16
    for (int vector = 0; vector < kBlock; ++vector) {
      const int group = vector % kGroups;
      const f64xn value = Kind::value(Kind::bits(a + vector * kLanes * Kind::size));
      add_product<Kind>(squares[group], value, value);
      add_product<Kind>(squares_other[group], value, value);
      add_product<Kind>(dot[group], value, value);
    }
  }
};

inline double total(const f64xn* groups) {
  double v[8];
  std::memcpy(v, groups, sizeof v);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

template <class Kind, bool careful>
void fill_in(const Sums<Kind, careful>& sums, int64_t elements, Compared& found) {
  uint64_t furthest = 0;
  int64_t uncountable = 0;
  constexpr int bits = Widths<typename Kind::Unsigned>::kBits;
  uint32_t counts[bits] = {};
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint64_t distance = sums.furthest[lane];
    if (distance > furthest) furthest = distance;
    uncountable += sums.uncountable[lane];
  }
  sums.widths.total(counts);
  const bool saturated = uncountable != 0 || furthest >= static_cast<uint64_t>(kUlpMax);
  if (!careful) found.different = counts[0];
  found.max_ulp = saturated ? kUlpMax : static_cast<int64_t>(furthest);
  found.ulps[0] = elements - counts[0] - uncountable;
  found.ulps[kUlpBuckets - 1] = uncountable;
  for (int k = 0; k < bits; ++k)
    found.ulps[k + 1] += counts[k] - (k + 1 < bits ? counts[k + 1] : 0);
}

// Whether a block of the one has the bits of that of the other.
template <class Kind>
inline __attribute__((always_inline)) bool equal_block(const unsigned char* a,
                                                       const unsigned char* b) {
  constexpr int vectors = kBlock * Kind::size / 8;
  u64xn apart{};
#pragma GCC unroll 16
  for (int i = 0; i < vectors; ++i)
    apart |= load<u64xn>(a + i * sizeof(u64xn)) ^ load<u64xn>(b + i * sizeof(u64xn));
#if NDP_VECTOR_BYTES == 64
  return _mm512_test_epi64_mask((__m512i)apart, (__m512i)apart) == 0;
#elif NDP_VECTOR_BYTES == 32
  return _mm256_testz_si256((__m256i)apart, (__m256i)apart) != 0;
#else
  uint64_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= apart[lane];
  return any == 0;
#endif
}

template <class Kind, bool careful>
Compared compare_once(const unsigned char* a, const unsigned char* b, int64_t elements) {
  constexpr int64_t block = kBlock * kLanes;
  Sums<Kind, careful> sums;
  const int64_t whole = elements / block * block;
  for (int64_t i = 0; i < whole; i += block) {
    if (equal_block<Kind>(a + i * Kind::size, b + i * Kind::size)) {
      sums.equal(a + i * Kind::size);
      continue;
    }
    sums.block(a + i * Kind::size, b + i * Kind::size, block);
  }
  if (whole < elements) {
    unsigned char last_a[block * Kind::size] = {}, last_b[block * Kind::size] = {};
    const int64_t kept = elements - whole;
    std::memcpy(last_a, a + whole * Kind::size, kept * Kind::size);
    std::memcpy(last_b, b + whole * Kind::size, kept * Kind::size);
    sums.block(last_a, last_b, static_cast<int>(kept));
  }
  Compared found;
  for (int lane = 0; lane < kLanes; ++lane) found.different += sums.different[lane];
  if constexpr (Kind::has_ulp) fill_in(sums, elements, found);
  found.sum_squares_difference = total(sums.squares_difference);
  found.sum_squares = total(sums.squares);
  found.sum_squares_other = total(sums.squares_other);
  found.dot = total(sums.dot);
  if (found.different == 0) return found;
  found.first = 0;
  while (found.first < whole &&
         equal_block<Kind>(a + found.first * Kind::size, b + found.first * Kind::size))
    found.first += block;
  while (std::memcmp(a + found.first * Kind::size, b + found.first * Kind::size, Kind::size) == 0)
    ++found.first;
  return found;
}

template <class Kind>
Compared compare_kind(const unsigned char* a, const unsigned char* b, int64_t elements) {
  if constexpr (Kind::has_ulp) {
    const Compared found = compare_once<Kind, false>(a, b, elements);
    // A NaN or two infinities make a gap of NaN, and no other addend takes that away again.
    if (found.sum_squares_difference == found.sum_squares_difference) return found;
  }
  return compare_once<Kind, true>(a, b, elements);
}

template <class Kind>
void ulp_kind(const unsigned char* a, const unsigned char* b, int64_t elements,
              int64_t* distances) {
  for (int64_t i = 0; i < elements; i += kLanes) {
    const int64_t kept = elements - i < kLanes ? elements - i : kLanes;
    unsigned char some_a[64] = {}, some_b[64] = {};
    std::memcpy(some_a, a + i * Kind::size, kept * Kind::size);
    std::memcpy(some_b, b + i * Kind::size, kept * Kind::size);
    const typename Kind::Signed bits_a = Kind::bits(some_a), bits_b = Kind::bits(some_b);
    const typename Kind::Signed nan = (Kind::nan(bits_a) | Kind::nan(bits_b)) & (bits_a != bits_b);
    const typename Kind::Unsigned distance = apart<Kind>(bits_a, bits_b);
    for (int64_t lane = 0; lane < kept; ++lane) {
      const uint64_t floats = distance[lane];
      const bool saturated = nan[lane] != 0 || floats > static_cast<uint64_t>(kUlpMax);
      distances[i + lane] = saturated ? kUlpMax : static_cast<int64_t>(floats);
    }
  }
}

}  // namespace

// dtype: real ones only; bool counts as uint8. elements <= kCompareChunk.
Compared compare_chunk(Dtype dtype, const unsigned char* a, const unsigned char* b,
                       int64_t elements) {
  switch (dtype) {
    case Dtype::int8:
      return compare_kind<Int8>(a, b, elements);
    case Dtype::uint16:
      return compare_kind<Uint16>(a, b, elements);
    case Dtype::int16:
      return compare_kind<Int16>(a, b, elements);
    case Dtype::uint32:
      return compare_kind<Uint32>(a, b, elements);
    case Dtype::int32:
      return compare_kind<Int32>(a, b, elements);
    case Dtype::uint64:
      return compare_kind<Uint64>(a, b, elements);
    case Dtype::int64:
      return compare_kind<Int64>(a, b, elements);
    case Dtype::float8_e4m3fn:
      return compare_kind<Float8<kE4m3fn>>(a, b, elements);
    case Dtype::float8_e5m2:
      return compare_kind<Float8<kE5m2>>(a, b, elements);
    case Dtype::float8_e4m3fnuz:
      return compare_kind<Float8<kE4m3fnuz>>(a, b, elements);
    case Dtype::float8_e5m2fnuz:
      return compare_kind<Float8<kE5m2fnuz>>(a, b, elements);
    case Dtype::float8_e8m0fnu:
      return compare_kind<Float8<kE8m0fnu>>(a, b, elements);
    case Dtype::float16:
      return compare_kind<Float16>(a, b, elements);
    case Dtype::bfloat16:
      return compare_kind<Bfloat16>(a, b, elements);
    case Dtype::float32:
      return compare_kind<Float32>(a, b, elements);
    case Dtype::float64:
      return compare_kind<Float64>(a, b, elements);
    default:
      return compare_kind<Uint8>(a, b, elements);
  }
}

// dtype: real floating ones only.
void ulp_distance(Dtype dtype, const unsigned char* a, const unsigned char* b, int64_t elements,
                  int64_t* distances) {
  switch (dtype) {
    case Dtype::float8_e4m3fn:
      return ulp_kind<Float8<kE4m3fn>>(a, b, elements, distances);
    case Dtype::float8_e5m2:
      return ulp_kind<Float8<kE5m2>>(a, b, elements, distances);
    case Dtype::float8_e4m3fnuz:
      return ulp_kind<Float8<kE4m3fnuz>>(a, b, elements, distances);
    case Dtype::float8_e5m2fnuz:
      return ulp_kind<Float8<kE5m2fnuz>>(a, b, elements, distances);
    case Dtype::float8_e8m0fnu:
      return ulp_kind<Float8<kE8m0fnu>>(a, b, elements, distances);
    case Dtype::float16:
      return ulp_kind<Float16>(a, b, elements, distances);
    case Dtype::bfloat16:
      return ulp_kind<Bfloat16>(a, b, elements, distances);
    case Dtype::float32:
      return ulp_kind<Float32>(a, b, elements, distances);
    default:
      return ulp_kind<Float64>(a, b, elements, distances);
  }
}

}  // namespace ndp::NDP_ISA
