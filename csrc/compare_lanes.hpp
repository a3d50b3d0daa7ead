// How a vector of elements becomes bits, places in the order of the floats, and values.
// Included by compare_isa.cpp only, inside the namespace of an ISA level: everything here has
// internal linkage, and nothing here may include a header. The vectors are the compiler's generic
// ones, so each level has the same semantics.

namespace {

// As many lanes as the level's registers hold doubles.
#if defined(__AVX512F__)
#define NDP_LANES 8
#elif defined(__AVX2__)
#define NDP_LANES 4
#else
#define NDP_LANES 2
#endif
constexpr int kLanes = NDP_LANES;

#define NDP_VECTOR(name, scalar) \
  typedef scalar name __attribute__((vector_size(NDP_LANES * sizeof(scalar))))
NDP_VECTOR(u8xn, uint8_t);
NDP_VECTOR(i8xn, int8_t);
NDP_VECTOR(u16xn, uint16_t);
NDP_VECTOR(i16xn, int16_t);
NDP_VECTOR(u32xn, uint32_t);
NDP_VECTOR(i32xn, int32_t);
NDP_VECTOR(f32xn, float);
NDP_VECTOR(u64xn, uint64_t);
NDP_VECTOR(i64xn, int64_t);
NDP_VECTOR(f64xn, double);

template <class Vector>
inline Vector load(const unsigned char* from) {
  Vector loaded;
  std::memcpy(&loaded, from, sizeof loaded);
  return loaded;
}

// The compiler's own conversions of whole registers go by halves; these are one instruction each.
// (Where every lane is kept, "maskz" says no more than that none is left undefined.)
#if NDP_VECTOR_BYTES == 64
inline f64xn wide(f32xn v) { return (f64xn)_mm512_maskz_cvtps_pd(0xff, (__m256)v); }
inline i64xn wide_mask(i32xn v) { return (i64xn)_mm512_maskz_cvtepi32_epi64(0xff, (__m256i)v); }
inline u32xn wide(u16xn v) { return (u32xn)_mm256_cvtepu16_epi32((__m128i)v); }
#elif NDP_VECTOR_BYTES == 32
inline f64xn wide(f32xn v) { return (f64xn)_mm256_cvtps_pd((__m128)v); }
inline i64xn wide_mask(i32xn v) { return (i64xn)_mm256_cvtepi32_epi64((__m128i)v); }
inline u32xn wide(u16xn v) { return __builtin_convertvector(v, u32xn); }
#else
inline f64xn wide(f32xn v) { return __builtin_convertvector(v, f64xn); }
inline i64xn wide_mask(i32xn v) { return __builtin_convertvector(v, i64xn); }
inline u32xn wide(u16xn v) { return __builtin_convertvector(v, u32xn); }
#endif
inline i64xn wide_mask(i64xn v) { return v; }

// All bits from the highest one that is set downwards; 0 of 0.
#if NDP_VECTOR_BYTES == 64
// Of 0 all places are above, and a shift by as many leaves nothing.
inline u32xn smeared(u32xn v) {
  return (u32xn)_mm256_srlv_epi32(_mm256_set1_epi32(-1), _mm256_lzcnt_epi32((__m256i)v));
}
inline u64xn smeared(u64xn v) {
  const __m512i above = _mm512_lzcnt_epi64((__m512i)v);
  return (u64xn)_mm512_maskz_srlv_epi64(0xff, _mm512_set1_epi64(-1), above);
}
#else
inline u32xn smeared(u32xn v) {
  v |= v >> 1;
  v |= v >> 2;
  v |= v >> 4;
  v |= v >> 8;
  return v | v >> 16;
}
inline u64xn smeared(u64xn v) {
  v |= v >> 1;
  v |= v >> 2;
  v |= v >> 4;
  v |= v >> 8;
  v |= v >> 16;
  return v | v >> 32;
}
#endif

// The place of a float in the order of all bit patterns, -0.0 at -1 and 0.0 at 0: adjacent
// patterns are 1 apart. `top` holds the pattern with its sign in the top bit.
inline i32xn place32(i32xn top) { return top ^ ((top >> 31) & 0x7fffffff); }
inline i64xn place64(i64xn top) { return top ^ ((top >> 63) & 0x7fffffffffffffff); }

// exact_products: the product of any two elements is a double.
struct Float64 {
  static constexpr bool has_ulp = true;
  static constexpr bool exact_products = false;
  static constexpr int size = 8;
  using Signed = i64xn;
  using Unsigned = u64xn;
  static Signed bits(const unsigned char* from) { return load<i64xn>(from); }
  static Signed place(Signed bits) { return place64(bits); }
  static Signed nan(Signed bits) { return (bits & 0x7fffffffffffffff) > 0x7ff0000000000000; }
  static f64xn value(Signed bits) { return (f64xn)bits; }
};

struct Float32 {
  static constexpr bool has_ulp = true;
  static constexpr bool exact_products = true;
  static constexpr int size = 4;
  using Signed = i32xn;
  using Unsigned = u32xn;
  static Signed bits(const unsigned char* from) { return load<i32xn>(from); }
  static Signed place(Signed bits) { return place32(bits); }
  static Signed nan(Signed bits) { return (bits & 0x7fffffff) > 0x7f800000; }
  static f64xn value(Signed bits) { return wide((f32xn)bits); }
};

// 16-bit kinds are kept in the top half of 32-bit lanes.
struct Half : Float32 {
  static constexpr int size = 2;
  static Signed bits(const unsigned char* from) {
    return (i32xn)(wide(load<u16xn>(from)) << 16);
  }
  static Signed place(Signed bits) { return place32(bits) >> 16; }
};

struct Bfloat16 : Half {};

struct Float16 : Half {
  static Signed nan(Signed bits) { return (bits & 0x7fffffff) > 0x7c000000; }
  static f64xn value(Signed bits) {
    const i32xn magnitude = (i32xn)((u32xn)(bits & 0x7fffffff) >> 16);
    const i32xn normal = (magnitude << 13) + (112 << 23);
    const i32xn special = (magnitude << 13) | 0x7f800000;
    const f32xn tiny = __builtin_convertvector(magnitude, f32xn) * 0x1p-24f;
    const i32xn subnormal = (i32xn)tiny;
    const i32xn chosen =
        magnitude < 0x0400 ? subnormal : (magnitude >= 0x7c00 ? special : normal);
    return wide((f32xn)(chosen | (bits & (int32_t)0x80000000)));
  }
};

// 8-bit floats: 256 places and values, worked out at compile time.
struct Table8 {
  int32_t place[256];
  bool nan[256];
  double value[256];
};

constexpr double power_of_two(int exponent) {
  double power = 1.0;
  for (; exponent > 0; --exponent) power *= 2.0;
  for (; exponent < 0; ++exponent) power *= 0.5;
  return power;
}

enum class Special { ieee, only_all_ones, only_negative_zero };

// Which patterns are NaN or infinite is what tells the kinds apart: as in IEEE 754 (e5m2), NaN
// only where all bits but the sign are ones (e4m3fn), or NaN only at the pattern of -0.0 (fnuz).
constexpr Table8 table8(int mantissa_bits, int bias, Special special) {
  Table8 table{};
  const int exponents = 1 << (7 - mantissa_bits);
  for (int pattern = 0; pattern < 256; ++pattern) {
    const int magnitude = pattern & 0x7f;
    const bool negative = pattern >= 0x80;
    const int exponent = magnitude >> mantissa_bits;
    const int fraction = magnitude & ((1 << mantissa_bits) - 1);
    double value = exponent == 0
                       ? fraction * power_of_two(1 - bias - mantissa_bits)
                       : (fraction + (1 << mantissa_bits)) *
                             power_of_two(exponent - bias - mantissa_bits);
    bool nan = special == Special::only_all_ones && magnitude == 0x7f;
    if (special == Special::only_negative_zero) nan = pattern == 0x80;
    if (special == Special::ieee && exponent == exponents - 1) {
      nan = fraction != 0;
      value = __builtin_huge_val();
    }
    if (nan) value = __builtin_nan("");
    table.nan[pattern] = nan;
    table.value[pattern] = negative ? -value : value;
    // Without a negative zero the smallest negative number is the neighbour of zero.
    const int below_zero = special == Special::only_negative_zero ? 0 : 1;
    table.place[pattern] = negative ? -magnitude - below_zero : magnitude;
  }
  return table;
}

// Exponents only: pattern p is 2^(p - 127), 255 is NaN.
constexpr Table8 table_e8m0() {
  Table8 table{};
  for (int pattern = 0; pattern < 256; ++pattern) {
    table.nan[pattern] = pattern == 255;
    table.value[pattern] = pattern == 255 ? __builtin_nan("") : power_of_two(pattern - 127);
    table.place[pattern] = pattern;
  }
  return table;
}

constexpr Table8 kE4m3fn = table8(3, 7, Special::only_all_ones);
constexpr Table8 kE5m2 = table8(2, 15, Special::ieee);
constexpr Table8 kE4m3fnuz = table8(3, 8, Special::only_negative_zero);
constexpr Table8 kE5m2fnuz = table8(2, 16, Special::only_negative_zero);
constexpr Table8 kE8m0fnu = table_e8m0();

template <const Table8& table>
struct Float8 {
  static constexpr bool has_ulp = true;
  static constexpr bool exact_products = true;
  static constexpr int size = 1;
  using Signed = i32xn;
  using Unsigned = u32xn;
  static Signed bits(const unsigned char* from) {
    return __builtin_convertvector(load<u8xn>(from), i32xn);
  }
  static Signed place(Signed bits) {
    Signed places{};
    for (int lane = 0; lane < kLanes; ++lane) places[lane] = table.place[bits[lane]];
    return places;
  }
  static Signed nan(Signed bits) {
    Signed mask{};
    for (int lane = 0; lane < kLanes; ++lane) mask[lane] = table.nan[bits[lane]] ? -1 : 0;
    return mask;
  }
  static f64xn value(Signed bits) {
    f64xn values{};
    for (int lane = 0; lane < kLanes; ++lane) values[lane] = table.value[bits[lane]];
    return values;
  }
};

// Whole numbers: values, but no ulp.
template <class Stored, class Vector, class Lanes>
struct Whole {
  static constexpr bool has_ulp = false;
  static constexpr bool exact_products = sizeof(Stored) < 4;
  static constexpr int size = sizeof(Stored);
  using Signed = Lanes;
  using Unsigned = Lanes;
  static Signed bits(const unsigned char* from) {
    return __builtin_convertvector(load<Vector>(from), Lanes);
  }
  static f64xn value(Signed bits) {
    if constexpr (sizeof(Stored) == sizeof(bits[0]))
      return __builtin_convertvector((Vector)bits, f64xn);
    else
      return __builtin_convertvector(bits, f64xn);
  }
};

using Uint8 = Whole<uint8_t, u8xn, i32xn>;
using Int8 = Whole<int8_t, i8xn, i32xn>;
using Uint16 = Whole<uint16_t, u16xn, i32xn>;
using Int16 = Whole<int16_t, i16xn, i32xn>;
using Uint32 = Whole<uint32_t, u32xn, i32xn>;
using Int32 = Whole<int32_t, i32xn, i32xn>;
using Uint64 = Whole<uint64_t, u64xn, i64xn>;
using Int64 = Whole<int64_t, i64xn, i64xn>;

}  // namespace
