// The NH sums of one block, compiled once for each ISA level.
#include "digest.hpp"
#include "simd.hpp"

// GCC 12 says both of its own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace ndp::NDP_ISA {

namespace {

#if NDP_VECTOR_BYTES == 64
struct Vector {
  static constexpr int words = 16;
  using Reg = __m512i;
  static Reg zero() { return _mm512_setzero_si512(); }
  static Reg load(const void* from) { return _mm512_loadu_si512(from); }
  static Reg key(const uint32_t* from) { return _mm512_load_si512(from); }
  // sum + low word * high word of each 64-bit lane of data + key
  static Reg step(Reg sum, Reg data, Reg key) {
    const Reg keyed = _mm512_add_epi32(data, key);
    return _mm512_add_epi64(sum, _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32)));
  }
};
#elif NDP_VECTOR_BYTES == 32
struct Vector {
  static constexpr int words = 8;
  using Reg = __m256i;
  static Reg zero() { return _mm256_setzero_si256(); }
  static Reg load(const void* from) { return _mm256_loadu_si256(static_cast<const Reg*>(from)); }
  static Reg key(const uint32_t* from) {
    return _mm256_load_si256(reinterpret_cast<const Reg*>(from));
  }
  static Reg step(Reg sum, Reg data, Reg key) {
    const Reg keyed = _mm256_add_epi32(data, key);
    return _mm256_add_epi64(sum, _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32)));
  }
};
#elif NDP_VECTOR_BYTES == 16
struct Vector {
  static constexpr int words = 4;
  using Reg = __m128i;
  static Reg zero() { return _mm_setzero_si128(); }
  static Reg load(const void* from) { return _mm_loadu_si128(static_cast<const Reg*>(from)); }
  static Reg key(const uint32_t* from) {
    return _mm_load_si128(reinterpret_cast<const Reg*>(from));
  }
  static Reg step(Reg sum, Reg data, Reg key) {
    const Reg keyed = _mm_add_epi32(data, key);
    return _mm_add_epi64(sum, _mm_mul_epu32(keyed, _mm_srli_epi64(keyed, 32)));
  }
};
#else
struct Vector {
  static constexpr int words = 2;
  using Reg = uint64_t;
  static Reg zero() { return 0; }
  static Reg load(const void* from) {
    Reg loaded;
    __builtin_memcpy(&loaded, from, sizeof loaded);
    return loaded;
  }
  static Reg key(const uint32_t* from) { return load(from); }
  static Reg step(Reg sum, Reg data, Reg key) {
    const uint32_t low = static_cast<uint32_t>(data) + static_cast<uint32_t>(key);
    const uint32_t high = static_cast<uint32_t>(data >> 32) + static_cast<uint32_t>(key >> 32);
    return sum + uint64_t{low} * high;
  }
};
#endif

uint64_t total(Vector::Reg sum) {
  uint64_t lanes[Vector::words / 2];
  __builtin_memcpy(lanes, &sum, sizeof lanes);
  uint64_t all = 0;
  for (uint64_t lane : lanes) all += lane;
  return all;
}

// Words of one 64-byte line, after which the keys of the second pass become those of the first.
static_assert(kPassShift == 16);
constexpr int kParts = kPassShift / Vector::words;

}  // namespace

// One block after the other, in the order of memory: four side by side would share the loads of the
// keys, but read memory at half the speed.
BlockHash hash_block(const unsigned char* data, const uint32_t* keys) {
  Vector::Reg first[kParts], second[kParts], key[kParts];
  for (int part = 0; part < kParts; ++part) {
    first[part] = second[part] = Vector::zero();
    key[part] = Vector::key(keys + part * Vector::words);
  }
  for (int word = 0; word < kBlockWords; word += kPassShift) {
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      const int at = word + part * Vector::words;
      const Vector::Reg loaded = Vector::load(data + at * 4);
      const Vector::Reg further = Vector::key(keys + at + kPassShift);
      first[part] = Vector::step(first[part], loaded, key[part]);
      second[part] = Vector::step(second[part], loaded, further);
      key[part] = further;
    }
  }
  BlockHash hash{};
  for (int part = 0; part < kParts; ++part) {
    hash.pass[0] += total(first[part]);
    hash.pass[1] += total(second[part]);
  }
  return hash;
}

}  // namespace ndp::NDP_ISA
