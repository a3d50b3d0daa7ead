// One chunk of a comparison, compiled once for each ISA level.
#include <cstring>

#include "compare.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined

namespace ndp::NDP_ISA {

#include "compare_lanes.hpp"

namespace {

// Floats between a and b lane by lane; 0 where `nan` is set: bits differ and one of them is NaN.
template <class Kind>
inline __attribute__((always_inline)) typename Kind::Unsigned apart(
    const typename Kind::Signed& a, const typename Kind::Signed& b, typename Kind::Signed& nan) {
  using Unsigned = typename Kind::Unsigned;
  nan = (Kind::nan(a) | Kind::nan(b)) & (a != b);
  const typename Kind::Signed place_a = Kind::place(a), place_b = Kind::place(b);
  const Unsigned distance = place_a > place_b ? (Unsigned)place_a - (Unsigned)place_b
                                              : (Unsigned)place_b - (Unsigned)place_a;
  return distance & (Unsigned)~nan;
}

// Eight lanes in all, at every level.
constexpr int kGroups = 8 / kLanes;

template <class Kind>
struct Sums {
  typename Kind::Signed different{};
  typename Kind::Signed uncountable{};
  typename Kind::Unsigned furthest{};
  f64xn squares_difference[kGroups]{};
  f64xn squares[kGroups]{};

  // Eight elements, of which those from `kept` on are padding.
  inline __attribute__((always_inline)) void add(const unsigned char* a, const unsigned char* b,
                                                 int kept) {
#pragma GCC unroll 4
    for (int group = 0; group < kGroups; ++group) {
      const int start = group * kLanes;
      const typename Kind::Signed bits_a = Kind::bits(a + start * Kind::size);
      const typename Kind::Signed bits_b = Kind::bits(b + start * Kind::size);
      const typename Kind::Signed differs = bits_a != bits_b;
      different -= differs;
      if constexpr (Kind::has_ulp) {
        typename Kind::Signed nan;
        const typename Kind::Unsigned distance = apart<Kind>(bits_a, bits_b, nan);
        uncountable |= nan;
        furthest = distance > furthest ? distance : furthest;
      }
      f64xn value_a = Kind::value(bits_a);
      const f64xn gap = value_a - Kind::value(bits_b);
      const f64xn counted = (f64xn)((i64xn)gap & __builtin_convertvector(differs, i64xn));
      if (kept < 8)
        for (int lane = 0; lane < kLanes; ++lane)
          if (start + lane >= kept) value_a[lane] = 0.0;
      squares_difference[group] += counted * counted;
      squares[group] += value_a * value_a;
    }
  }
};

inline double total(const f64xn* groups) {
  double v[8];
  std::memcpy(v, groups, sizeof v);
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

template <class Kind>
Compared compare_kind(const unsigned char* a, const unsigned char* b, int64_t elements) {
  Sums<Kind> sums;
  const int64_t whole = elements / 8 * 8;
  for (int64_t i = 0; i < whole; i += 8) sums.add(a + i * Kind::size, b + i * Kind::size, 8);
  const int rest = static_cast<int>(elements - whole);
  if (rest != 0) {
    unsigned char last_a[64] = {}, last_b[64] = {};
    std::memcpy(last_a, a + whole * Kind::size, rest * Kind::size);
    std::memcpy(last_b, b + whole * Kind::size, rest * Kind::size);
    sums.add(last_a, last_b, rest);
  }
  Compared found;
  uint64_t furthest = 0;
  bool uncountable = false;
  for (int lane = 0; lane < kLanes; ++lane) {
    found.different += sums.different[lane];
    if constexpr (Kind::has_ulp) {
      const uint64_t distance = sums.furthest[lane];
      if (distance > furthest) furthest = distance;
      uncountable |= sums.uncountable[lane] != 0;
    }
  }
  const bool saturated = uncountable || furthest > static_cast<uint64_t>(kUlpMax);
  found.max_ulp = saturated ? kUlpMax : static_cast<int64_t>(furthest);
  found.sum_squares_difference = total(sums.squares_difference);
  found.sum_squares = total(sums.squares);
  if (found.different != 0) {
    found.first = 0;
    while (std::memcmp(a + found.first * Kind::size, b + found.first * Kind::size, Kind::size) == 0)
      ++found.first;
  }
  return found;
}

template <class Kind>
void ulp_kind(const unsigned char* a, const unsigned char* b, int64_t elements,
              int64_t* distances) {
  for (int64_t i = 0; i < elements; i += kLanes) {
    const int64_t kept = elements - i < kLanes ? elements - i : kLanes;
    unsigned char some_a[64] = {}, some_b[64] = {};
    std::memcpy(some_a, a + i * Kind::size, kept * Kind::size);
    std::memcpy(some_b, b + i * Kind::size, kept * Kind::size);
    typename Kind::Signed nan;
    const typename Kind::Unsigned distance =
        apart<Kind>(Kind::bits(some_a), Kind::bits(some_b), nan);
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
