// The arithmetic of the digest format "ndp-digest-1", once for host and device. docs/digest.md is
// the specification; tests/bits/ holds a second implementation that was written from it.
//
// Everything is `static`: files compiled for different instruction sets must not share functions.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define NDP_HD __host__ __device__
#else
#define NDP_HD
#endif

namespace ndp {

constexpr int64_t kBlockBytes = 4096;
constexpr int kBlockWords = kBlockBytes / 4;
constexpr int kLineWords = 16;  // a line is 64 bytes; the second sum pairs words a line apart
constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr uint64_t kDigestSeed = 0x312d67642d70646eULL;  // "ndp-dg-1" as little-endian bytes

// One output of SplitMix64 (Steele, Lea, Flood 2014) for the state that it is handed.
NDP_HD static constexpr uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

struct DigestKeys {
  alignas(64) uint32_t words[kBlockWords + kLineWords];
  uint64_t points[2];  // where the two polynomials are evaluated
};

static constexpr DigestKeys digest_keys() {
  DigestKeys keys{};
  uint64_t state = kDigestSeed;
  for (int i = 0; i < kBlockWords + kLineWords; i += 2) {
    state += 0x9e3779b97f4a7c15ULL;
    const uint64_t drawn = mixed(state);
    keys.words[i] = static_cast<uint32_t>(drawn);
    keys.words[i + 1] = static_cast<uint32_t>(drawn >> 32);
  }
  for (uint64_t& point : keys.points) {
    do {
      state += 0x9e3779b97f4a7c15ULL;
      point = mixed(state) >> 3;
    } while (point == kPrime);
  }
  return keys;
}

// a + b mod p, for a and b below p.
NDP_HD static inline uint64_t add_mod(uint64_t a, uint64_t b) {
  const uint64_t sum = a + b;
  return sum >= kPrime ? sum - kPrime : sum;
}

// a * b mod p, for a and b below p.
NDP_HD static inline uint64_t mul_mod(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return add_mod(static_cast<uint64_t>(product) & kPrime, static_cast<uint64_t>(product >> 61));
}

// One more coefficient under Horner's rule.
NDP_HD static inline uint64_t append(uint64_t value, uint64_t point, uint64_t coefficient) {
  return add_mod(mul_mod(value, point), coefficient);
}

// A 64-bit number does not fit below p, so it is two coefficients: its low half, its high half.
NDP_HD static inline uint64_t append_halves(uint64_t value, uint64_t point, uint64_t number) {
  return append(append(value, point, number & 0xffffffffu), point, number >> 32);
}

// The value of a run of coefficients with another run of `count` of them behind it.
NDP_HD static inline uint64_t append_run(uint64_t value, uint64_t point, uint64_t run,
                                         uint64_t count) {
  uint64_t power = 1;
  for (uint64_t square = point; count != 0; count >>= 1) {
    if (count & 1) power = mul_mod(power, square);
    square = mul_mod(square, square);
  }
  return add_mod(mul_mod(value, power), run);
}

// A bijection of pairs of words (a Feistel network), so that every bit of the digest depends on
// both polynomials.
NDP_HD static inline void finish(uint64_t& a, uint64_t& b) {
  a ^= mixed(b + 0x9e3779b97f4a7c15ULL);
  b ^= mixed(a + 0x3c6ef372fe94f82aULL);
  a ^= mixed(b + 0xdaa66d2c7ddf743fULL);
  b ^= mixed(a + 0x78dde6e5fd29f054ULL);
}

}  // namespace ndp
