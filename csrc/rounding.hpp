// Binary formats, and the one rounding at the end, to nearest even, of what is a few words, the
// leading bits of a long row of digits, a quotient or a square root.
//
// Plain functions of internal linkage: every ISA level compiles its own, and a CUDA file can
// include them as they are.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define NDP_HD __host__ __device__
#else
#define NDP_HD
#endif

namespace ndp {

// A binary interchange format, as far as rounding needs it.
struct Format {
  int precision;        // bits of the significand, the hidden one included
  int lowest_exponent;  // the smallest subnormal is 2^lowest_exponent
  uint64_t infinity;    // bit patterns
  uint64_t quiet_nan;
  uint64_t sign;
};

// Functions, because device code cannot refer to a constant of the host's.
NDP_HD constexpr Format format64() {
  return {53, -1074, 0x7ff0000000000000u, 0x7ff8000000000000u, 0x8000000000000000u};
}
NDP_HD constexpr Format format32() { return {24, -149, 0x7f800000u, 0x7fc00000u, 0x80000000u}; }
NDP_HD constexpr Format format_bf16() { return {8, -133, 0x7f80u, 0x7fc0u, 0x8000u}; }
NDP_HD constexpr Format format16() { return {11, -24, 0x7c00u, 0x7e00u, 0x8000u}; }

constexpr Format kFormat64 = format64();
constexpr Format kFormat32 = format32();
constexpr Format kFormatBf16 = format_bf16();
constexpr Format kFormat16 = format16();

// x is not 0.
NDP_HD static inline int leading_zeros(uint64_t x) {
#if defined(__CUDA_ARCH__)
  return __clzll(static_cast<long long>(x));
#else
  return __builtin_clzll(x);
#endif
}

// The number (bits + something in [0, 1)) * 2^exponent; `sticky` says that the something is not 0.
struct Leading {
  unsigned __int128 bits;
  int exponent;
  bool sticky;
};

NDP_HD static inline int leading_zeros(unsigned __int128 x) {
  const uint64_t high = static_cast<uint64_t>(x >> 64);
  if (high != 0) return leading_zeros(high);
  const uint64_t low = static_cast<uint64_t>(x);
  return low != 0 ? 64 + leading_zeros(low) : 128;
}

// The bit pattern of +-x in `format`. Where x is sticky, its bits must reach at least two places
// below those of the result. Zero keeps the sign asked for.
NDP_HD static inline uint64_t round_leading(const Leading& x, bool negative, const Format& format) {
  const uint64_t sign = negative ? format.sign : 0;
  if (x.bits == 0) return sign;
  const int top = x.exponent + 127 - leading_zeros(x.bits);
  const int least = top - (format.precision - 1);
  const int last = least > format.lowest_exponent ? least : format.lowest_exponent;
  const int above = last - format.lowest_exponent;
  if (above + 1 >= static_cast<int>(format.infinity >> (format.precision - 1)))
    return format.infinity | sign;
  const int drop = last - x.exponent;
  uint64_t kept = 0;
  bool half = false;
  bool below = x.sticky;
  if (drop <= 0) {
    kept = static_cast<uint64_t>(x.bits << -drop);
  } else if (drop <= 128) {
    if (drop < 128) kept = static_cast<uint64_t>(x.bits >> drop);
    const unsigned __int128 one = 1;
    half = (x.bits >> (drop - 1) & 1) != 0;
    below |= (x.bits & ((one << (drop - 1)) - 1)) != 0;
  }
  // The hidden bit of a normal number adds the 1 that its biased exponent has more than `above`; a
  // subnormal has neither. Rounding up carries into the exponent by itself.
  uint64_t bits = (static_cast<uint64_t>(above) << (format.precision - 1)) + kept;
  bits += half && (below || (kept & 1));
  return bits | sign;
}

// The leading 128 bits of the number sum of digit[i] * 2^(32 i + lowest), digits in [0, 2^32); all
// bits are 0 where it is 0, else the highest is 1.
NDP_HD static inline Leading leading(const int64_t* digit, int digits, int lowest) {
  int high = digits - 1;
  while (high >= 0 && digit[high] == 0) --high;
  if (high < 0) return {0, 0, false};
  unsigned __int128 bits = 0;
  for (int i = high; i > high - 4; --i)
    bits = bits << 32 | static_cast<uint64_t>(i >= 0 ? digit[i] : 0);
  const int shift = leading_zeros(bits);
  const uint64_t next = static_cast<uint64_t>(high >= 4 ? digit[high - 4] : 0) << shift;
  bits = bits << shift | next >> 32;
  bool sticky = (next & 0xffffffff) != 0;
  for (int i = 0; i < high - 4 && !sticky; ++i) sticky = digit[i] != 0;
  return {bits, lowest + 32 * (high - 3) - shift, sticky};
}

// x divided by the positive d. The result has at least 64 bits.
NDP_HD static inline Leading quotient(Leading x, uint64_t d) {
  if (x.bits == 0) return x;
  const int shift = leading_zeros(x.bits);
  x.bits <<= shift;
  const unsigned __int128 whole = x.bits / d;
  return {whole, x.exponent - shift, x.sticky || whole * d != x.bits};
}

// The square root of x, whose highest bit is 1, or 0. The result has 64 bits.
NDP_HD static inline Leading square_root(Leading x) {
  if (x.exponent % 2 != 0) {
    x.sticky |= (x.bits & 1) != 0;
    x.bits >>= 1;
    x.exponent += 1;
  }
  // One bit of the root a round: rest = x - root^2, read off from the top.
  unsigned __int128 rest = x.bits, root = 0;
  for (unsigned __int128 bit = static_cast<unsigned __int128>(1) << 126; bit != 0; bit >>= 2) {
    const bool fits = rest >= root + bit;
    if (fits) rest -= root + bit;
    root = (root >> 1) + (fits ? bit : 0);
  }
  return {root, x.exponent / 2, x.sticky || rest != 0};
}

// The bit pattern, in `format`, of x rounded once. Where the format is fp64, x itself, but for NaN.
NDP_HD static inline uint64_t round_double(double x, const Format& format) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint64_t magnitude = bits & 0x7fffffffffffffff;
  if (magnitude > kFormat64.infinity) return format.quiet_nan;
  if (format.precision == kFormat64.precision) return bits;
  const uint64_t sign = bits >> 63 ? format.sign : 0;
  if (magnitude == kFormat64.infinity) return sign | format.infinity;
  const int biased = static_cast<int>(magnitude >> 52);
  // The value is significand times 2^exponent. fp64's subnormals are below half of anything here.
  const uint64_t significand = (magnitude & 0xfffffffffffff) | uint64_t{biased != 0} << 52;
  const int exponent = biased - 1075;
  const int normal_last = exponent + 53 - format.precision;
  const int last = normal_last > format.lowest_exponent ? normal_last : format.lowest_exponent;
  const int shift = last - exponent;
  if (shift > 54) return sign;
  const uint64_t kept = significand >> shift;
  const uint64_t lost = significand & ((uint64_t{1} << shift) - 1);
  const uint64_t half = uint64_t{1} << (shift - 1);
  // As in round_leading: the hidden bit adds its own 1 to the exponent.
  uint64_t result =
      (static_cast<uint64_t>(last - format.lowest_exponent) << (format.precision - 1)) + kept;
  result += lost > half || (lost == half && (kept & 1));
  return sign | (result > format.infinity ? format.infinity : result);
}

}  // namespace ndp
