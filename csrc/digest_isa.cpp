// Blocks into the two polynomials, compiled once for each ISA level.
//
// Operation budget of one 64-byte line (16 fp32) in AVX-512: 1 load of the data; 1 addition of the
// keys (loaded by the same instruction); 1 shift; 2 multiplications 32 x 32 -> 64; 2 additions: 7
// instructions, of which 6 keep the two 512-bit pipes of Zen 4 busy for 3 cycles. Once per 64 lines
// 2 sums of lanes and 4 products mod p, some 150 instructions. Main memory delivers a line in about
// 7 cycles (34 GB/s at 3.7 GHz), so the prediction is: bound by memory, as fast as torch.sum reads.
//
// Instructions matter beyond their cycles: the reorder buffer (320) has to span the lines that are
// on their way. Two passes of NH with separate keys took 10 a line and 0.9 of the speed.
#include "digest_math.hpp"
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
  // In every 64-bit lane: both words with their keys added; the high word moved to the place of
  // the low one; the product of two low words.
  static Reg keyed(Reg data, Reg key) { return _mm512_add_epi32(data, key); }
  static Reg high(Reg words) { return _mm512_srli_epi64(words, 32); }
  static Reg product(Reg a, Reg b) { return _mm512_mul_epu32(a, b); }
  static Reg add(Reg a, Reg b) { return _mm512_add_epi64(a, b); }
  // Not _mm512_reduce_add_epi64: in gcc's header that adds signed numbers, which must not wrap.
  static uint64_t total(Reg sum) {
    const __m256i four =
        _mm256_add_epi64(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64(sum, 1));
    const __m128i two =
        _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
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
  static Reg keyed(Reg data, Reg key) { return _mm256_add_epi32(data, key); }
  static Reg high(Reg words) { return _mm256_srli_epi64(words, 32); }
  static Reg product(Reg a, Reg b) { return _mm256_mul_epu32(a, b); }
  static Reg add(Reg a, Reg b) { return _mm256_add_epi64(a, b); }
  static uint64_t total(Reg sum) {
    const __m128i two =
        _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
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
  static Reg keyed(Reg data, Reg key) { return _mm_add_epi32(data, key); }
  static Reg high(Reg words) { return _mm_srli_epi64(words, 32); }
  static Reg product(Reg a, Reg b) { return _mm_mul_epu32(a, b); }
  static Reg add(Reg a, Reg b) { return _mm_add_epi64(a, b); }
  static uint64_t total(Reg sum) {
    return _mm_cvtsi128_si64(_mm_add_epi64(sum, _mm_unpackhi_epi64(sum, sum)));
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
  static Reg keyed(Reg data, Reg key) {
    const uint32_t low = static_cast<uint32_t>(data) + static_cast<uint32_t>(key);
    const uint32_t high = static_cast<uint32_t>(data >> 32) + static_cast<uint32_t>(key >> 32);
    return uint64_t{high} << 32 | low;
  }
  static Reg high(Reg words) { return words >> 32; }
  static Reg product(Reg a, Reg b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
  static Reg add(Reg a, Reg b) { return a + b; }
  static uint64_t total(Reg sum) { return sum; }
};
#endif

constexpr int kParts = kLineWords / Vector::words;  // vectors of one 64-byte line

// The processor's own prefetching ends with a page of 4 KB and starts anew in the next one. Asking
// a page ahead for its first lines makes up for it: 1.2 times the speed in main memory (every line,
// half a block later, or two pages ahead: slower). Past the end of the tensor it is no fault.
inline void start_next_page(const unsigned char* data) {
  const uintptr_t page = (reinterpret_cast<uintptr_t>(data) + 4096) & ~uintptr_t{4095};
  for (int line = 0; line < 5; ++line)
    __builtin_prefetch(reinterpret_cast<const void*>(page + line * 64));
}

// The two sums of a block, lane by lane.
struct Sums {
  Vector::Reg first[kParts];
  Vector::Reg second[kParts];
  Vector::Reg previous[kParts];  // the line before, keyed; its low words meet our high words

  // The lines that hold words [from, to).
  inline __attribute__((always_inline)) void take(const unsigned char* data, const uint32_t* keys,
                                                  int from, int to) {
#pragma GCC unroll 4
    for (int word = from; word < to; word += kLineWords) {
#pragma GCC unroll 8
      for (int part = 0; part < kParts; ++part) {
        const int at = word + part * Vector::words;
        const Vector::Reg loaded = Vector::load(data + at * 4);
        const Vector::Reg words = Vector::keyed(loaded, Vector::key(keys + at));
        const Vector::Reg high = Vector::high(words);
        first[part] = Vector::add(first[part], Vector::product(words, high));
        second[part] = Vector::add(second[part], Vector::product(previous[part], high));
        previous[part] = words;
      }
    }
  }
};

// Lines of a block before the block before it goes into the polynomials. At the border of two
// blocks, which often is one of two pages, the processor waits for memory anyway.
constexpr int kWordsFirst = 48 * kLineWords;

}  // namespace

// Append the sums of whole blocks to the two polynomials' values. One block after the other, in the
// order of memory: four side by side read memory at half the speed.
void hash_blocks(const unsigned char* data, int64_t blocks, const DigestKeys& keys,
                 uint64_t* values) {
  const uint32_t* ends = keys.words + kBlockWords;  // a line without data, before and behind
  Vector::Reg first = Vector::zero(), second = Vector::zero();  // of the block before
  uint64_t value_first = values[0], value_second = values[1];
  const auto finish_block = [&]() __attribute__((always_inline)) {
    value_first = append_halves(value_first, keys.points[0], Vector::total(first));
    value_second = append_halves(value_second, keys.points[1], Vector::total(second));
  };
  for (int64_t block = 0; block < blocks; ++block, data += kBlockBytes) {
    Sums sums;
    for (int part = 0; part < kParts; ++part) {
      sums.first[part] = sums.second[part] = Vector::zero();
      sums.previous[part] = Vector::key(ends + part * Vector::words);
    }
    start_next_page(data);
    sums.take(data, keys.words, 0, kWordsFirst);
    if (block != 0) finish_block();
    sums.take(data, keys.words, kWordsFirst, kBlockWords);
    first = second = Vector::zero();
    for (int part = 0; part < kParts; ++part) {
      const Vector::Reg high = Vector::high(Vector::key(ends + part * Vector::words));
      first = Vector::add(first, sums.first[part]);
      second = Vector::add(second, sums.second[part]);
      second = Vector::add(second, Vector::product(sums.previous[part], high));
    }
  }
  if (blocks != 0) finish_block();
  values[0] = value_first;
  values[1] = value_second;
}

}  // namespace ndp::NDP_ISA
