// exp for floats, doubles and vectors of either, and log for doubles: made of single additions,
// multiplications and divisions, so that every instruction set gives the same bits. libm's give
// other bits on another machine.
//
// Largest error, in ulps of the result: exp and log below 1.0 (seen: exp 0.952 over every fp32
// number and 0.946 over 20 million fp64 ones, log 0.841). Subnormal results of exp are rounded a
// second time: below 1.5. tests/ops/test_exp_log.py.
//
// The coefficients interpolate at the Chebyshev nodes of the reduced interval.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define NDP_HD __host__ __device__
#else
#define NDP_HD
#endif

namespace ndp {

// exp(x) = 2^n exp(r), n the whole number nearest to x / ln 2, |r| <= ln(2) / 2, and
// exp(r) = 1 + (r + r^2 q(r)). n times ln2_high is exact.
struct Exp32 {
  using Bits = uint32_t;
  static constexpr float lowest = -104, highest = 89;  // beyond: 0 and infinity
  static constexpr float log2e = 0x1.715476p+0f;
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float whole = 0x1.8p23f;  // added, it leaves a whole number in the low bits
  static constexpr int fraction_bits = 23, bias = 127;
  static constexpr int terms = 6;
};

struct Exp64 {
  using Bits = uint64_t;
  static constexpr double lowest = -746, highest = 710;
  static constexpr double log2e = 0x1.71547652b82fep+0;
  static constexpr double ln2_high = 0x1.62e42fefa2p-1, ln2_low = 0x1.9ef35793c7673p-41;
  static constexpr double whole = 0x1.8p52;
  static constexpr int fraction_bits = 52, bias = 1023;
  static constexpr int terms = 11;
};

// Coefficient i of q. Functions, because device code cannot refer to an array of the host's; not
// members, which ISA levels would share.
NDP_HD static constexpr float q_of(Exp32, int i) {
  constexpr float kQ[Exp32::terms] = {0x1p-1f,         0x1.555556p-3f,  0x1.5554eap-5f,
                                      0x1.1110ep-7f,   0x1.6d4324p-10f, 0x1.a124f2p-13f};
  return kQ[i];
}
NDP_HD static constexpr double q_of(Exp64, int i) {
  constexpr double kQ[Exp64::terms] = {0x1p-1,
                                       0x1.5555555555557p-3,
                                       0x1.5555555555556p-5,
                                       0x1.11111111100dcp-7,
                                       0x1.6c16c16c162d4p-10,
                                       0x1.a01a01abe7fe1p-13,
                                       0x1.a01a01a6d889cp-16,
                                       0x1.71de0231960ebp-19,
                                       0x1.27e4db646b17ep-22,
                                       0x1.af4de97ca4194p-26,
                                       0x1.1f730349868cep-29};
  return kQ[i];
}

// V: the float type of `Of` or a vector of it; U: the unsigned type of the same shape.
// NaN gives a NaN, -inf gives 0, inf gives inf.
template <class Of, class V, class U>
NDP_HD static inline __attribute__((always_inline)) V exp_of(V x) {
  // `constant - V{}` is the constant in every lane.
  const V lowest = Of::lowest - V{}, highest = Of::highest - V{}, whole = Of::whole - V{};
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  const V shifted = x * Of::log2e + whole;
  const V n = shifted - whole;
  const V r = (x - n * Of::ln2_high) - n * Of::ln2_low;
  V q = q_of(Of{}, Of::terms - 1) - V{};
#if defined(__CUDACC__)
#pragma unroll
#else
#pragma GCC unroll 16
#endif
  for (int i = Of::terms - 2; i >= 0; --i) q = q * r + q_of(Of{}, i);
  const V p = (r + r * r * q) + 1;
  // Times 2^n in two halves, neither of which leaves the exponents there are; only the second can
  // round, where the result is subnormal. The shift must be one of unsigned numbers: hence the
  // offset, a multiple of 4 larger than any |n|.
  constexpr typename Of::Bits kOffset = 4 * Of::bias + 4;
  const U exponent = __builtin_bit_cast(U, shifted) - __builtin_bit_cast(U, whole);
  const U half = ((exponent + kOffset) >> 1) - kOffset / 2;
  const V first = __builtin_bit_cast(V, (half + Of::bias) << Of::fraction_bits);
  const V second = __builtin_bit_cast(V, (exponent - half + Of::bias) << Of::fraction_bits);
  return p * first * second;
}

// x = 2^n (1 + f), 1 + f within a factor of sqrt(2) of 1; with s = f / (2 + f), log(1 + f) is
// 2 atanh(s) = f - (f^2/2 - s (f^2/2 + s^2 r(s^2))).
// log(0) is -inf, of negative numbers and NaN a NaN, of inf inf.
NDP_HD static inline double log_of(double x) {
  constexpr double kR[] = {0x1.5555555555558p-1, 0x1.99999999952d7p-2, 0x1.2492492df281ap-2,
                           0x1.c71c62e3f11e6p-3, 0x1.7462b51cb66b1p-3, 0x1.39fe51a7c18f9p-3,
                           0x1.2b5900de53b32p-3};
  if (!(x > 0)) return x == 0 ? -__builtin_inf() : __builtin_nan("");
  if (x == __builtin_inf()) return x;
  int n = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    n = -54;
  }
  // Counted from sqrt(1/2), so that the exponent field changes there.
  constexpr uint64_t kOne = uint64_t{1023} << 52, kRootHalf = 0x3fe6a09e667f3bcd;
  const uint64_t bits = __builtin_bit_cast(uint64_t, x) + (kOne - kRootHalf);
  n += static_cast<int>(bits >> 52) - 1023;
  const double f = __builtin_bit_cast(double, (bits & 0xfffffffffffff) + kRootHalf) - 1;
  const double s = f / (2 + f), z = s * s;
  double r = kR[6];
  for (int i = 5; i >= 0; --i) r = r * z + kR[i];
  const double half = 0.5 * f * f;
  return n * Exp64::ln2_high - ((half - (s * (half + z * r) + n * Exp64::ln2_low)) - f);
}

}  // namespace ndp
