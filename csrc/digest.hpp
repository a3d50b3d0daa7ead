// The arithmetic of the digest format "ndp-digest-1", once for host and device. docs/digest.md is
// the specification; tests/bits/ holds a second implementation that was written from it.
//
// Operation budget of one 64-byte line (16 fp32) in AVX-512: 1 load of the keys; 1 addition of the
// data (loaded by the same instruction); 1 shift; 2 multiplications 32 x 32 -> 64; 2 additions: 7
// instructions, of which 6 keep the two 512-bit pipes of Zen 4 busy for 3 cycles. Once per 64 lines 2
// sums of lanes and 4 products mod p, which overlap the next block. Main memory delivers a line in
// about 7 cycles (34 GB/s at 3.7 GHz), so the prediction is: bound by memory, as fast as torch.sum.
// Few instructions matter more than few cycles: the reorder buffer (320) must span the lines that are
// on their way. (Two passes of NH with their own keys took 10 a line: 0.9 of torch.sum.)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dtypes.hpp"

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
NDP_HD constexpr uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

struct DigestKeys {
  alignas(64) uint32_t words[kBlockWords + kLineWords];
  uint64_t points[2];  // where the two polynomials are evaluated
};

constexpr DigestKeys digest_keys() {
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

// The two sums of one block.
struct BlockHash {
  uint64_t sum[2];
};

// a + b mod p, for a and b below p.
NDP_HD inline uint64_t add_mod(uint64_t a, uint64_t b) {
  const uint64_t sum = a + b;
  return sum >= kPrime ? sum - kPrime : sum;
}

// a * b mod p, for a and b below p.
NDP_HD inline uint64_t mul_mod(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return add_mod(static_cast<uint64_t>(product) & kPrime, static_cast<uint64_t>(product >> 61));
}

// A run of coefficients under Horner's rule: value = sum of c_i * point^(count - 1 - i).
struct Polynomial {
  uint64_t value = 0;
  uint64_t count = 0;

  NDP_HD void append(uint64_t point, uint64_t coefficient) {
    value = add_mod(mul_mod(value, point), coefficient);
    ++count;
  }
  NDP_HD void append_halves(uint64_t point, uint64_t word) {
    append(point, word & 0xffffffffu);
    append(point, word >> 32);
  }
  // The run of `next` behind this one.
  NDP_HD void append_run(uint64_t point, const Polynomial& next) {
    uint64_t power = 1;
    uint64_t square = point;
    for (uint64_t left = next.count; left != 0; left >>= 1) {
      if (left & 1) power = mul_mod(power, square);
      square = mul_mod(square, square);
    }
    value = add_mod(mul_mod(value, power), next.value);
    count += next.count;
  }
};

// A bijection of pairs of words (a Feistel network), so that every bit of the digest depends on
// both polynomials.
NDP_HD inline void finish(uint64_t& a, uint64_t& b) {
  a ^= mixed(b + 0x9e3779b97f4a7c15ULL);
  b ^= mixed(a + 0x3c6ef372fe94f82aULL);
  a ^= mixed(b + 0xdaa66d2c7ddf743fULL);
  b ^= mixed(a + 0x78dde6e5fd29f054ULL);
}

// Where a tensor's elements lie. strides are in elements.
struct Layout {
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// The digest as 32 hex digits. The same for every level, thread count and layout.
std::string digest(Dtype dtype, const void* data, const Layout& layout, int threads,
                   const std::string& isa);

}  // namespace ndp
