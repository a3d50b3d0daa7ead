// Blocks into buckets, compiled once for each ISA level.
//
// The buckets are gone through in order, and each vector of them takes what four blocks have for
// it, one block after the other. So the buckets are read and written once for four blocks, and a
// block is read as two stretches in the order of memory: from where the first bucket falls to its
// end, and from its beginning.
//
// Operation budget of one 64-byte line (16 fp32) in AVX-512, 8 elements at a time: 2 loads that
// convert, 2 loads that widen signs, 2 changes of sign, 2 additions; a quarter of 2 loads and 2
// stores of buckets: 9 instructions, some 5 cycles. The buckets (32 KB) do not stay in a level-1
// cache of 32 KB beside the data, the signs (4 KB) do: 32 bytes of buckets in, 32 out, and the line
// itself are 4 cycles at 32 bytes each. Main memory delivers a line in about 7 cycles, so the
// prediction is: bound by memory, 1.0 to 1.2 times the time of torch.sum; the limit that it must
// keep is 1.5.
#include <cstdint>
#include <cstring>

#include "sketch.hpp"
#include "sum.hpp"
#pragma GCC diagnostic push
// gcc 12 takes the deliberately undefined registers of its own AVX-512 header for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "simd.hpp"
#pragma GCC diagnostic pop

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined

namespace ndp::NDP_ISA {

#include "sum_lanes.hpp"

namespace {

// kDoubles sign bits, of as many bytes.
NDP_INLINE Words sign_bits(const uint8_t* signs) {
#if NDP_VECTOR_BYTES == 64
  const Words wide = (Words)_mm512_cvtepi8_epi64(_mm_loadl_epi64((const __m128i*)signs));
#elif NDP_VECTOR_BYTES == 32
  int32_t four;
  std::memcpy(&four, signs, sizeof four);
  const Words wide = (Words)_mm256_cvtepi8_epi64(_mm_cvtsi32_si128(four));
#else
  const Words wide = Words{uint64_t{signs[0]} << 56, uint64_t{signs[1]} << 56};
#endif
  return wide & (uint64_t{1} << 63);
}

// kDoubles elements with their signs, as fp64.
template <class T>
NDP_INLINE Doubles signed_values(const T* x, const uint8_t* signs) {
  return (Doubles)((Words)doubles(x) ^ sign_bits(signs));
}

// The same where the block ends and begins again within the vector, at `x[first]` to begin with.
template <class T>
Doubles values_round_the_end(const T* x, const uint8_t* signs, int first) {
  T joined[kDoubles];
  uint8_t both[kDoubles];
  for (int i = 0; i < kDoubles; ++i) {
    joined[i] = x[(first + i) & (kBuckets - 1)];
    both[i] = signs[(first + i) & (kBuckets - 1)];
  }
  return signed_values(joined, both);
}

template <class T, int count>
void add_whole(const SketchedBlock* blocks, double* buckets) {
  for (int bucket = 0; bucket < kBuckets;) {
    // Up to where the first of the blocks ends, all are read on and on.
    const T* x[count];
    const uint8_t* signs[count];
    int far = kBuckets - bucket;
    for (int i = 0; i < count; ++i) {
      const int at = (bucket - blocks[i].rotation) & (kBuckets - 1);
      if (kBuckets - at < far) far = kBuckets - at;
      x[i] = static_cast<const T*>(blocks[i].data) + at;
      signs[i] = blocks[i].signs + at;
    }
    far = far / kDoubles * kDoubles;
    for (int64_t step = 0; step < far; step += kDoubles) {
      Doubles sum = load<Doubles>(buckets + bucket + step);
#pragma GCC unroll 8
      for (int i = 0; i < count; ++i) sum += signed_values(x[i] + step, signs[i] + step);
      std::memcpy(buckets + bucket + step, &sum, sizeof sum);
    }
    bucket += far;
    if (bucket == kBuckets) break;
    Doubles sum = load<Doubles>(buckets + bucket);
    for (int i = 0; i < count; ++i)
      sum += values_round_the_end(static_cast<const T*>(blocks[i].data), blocks[i].signs,
                                  (bucket - blocks[i].rotation) & (kBuckets - 1));
    std::memcpy(buckets + bucket, &sum, sizeof sum);
    bucket += kDoubles;
  }
}

// Of a block that is not whole: what is not there would add zero.
template <class T>
void add_part(const SketchedBlock& block, double* buckets) {
  const T* x = static_cast<const T*>(block.data);
  for (int i = 0; i < block.elements; ++i) {
    const double element = value(x[i]);
    buckets[(block.rotation + i) & (kBuckets - 1)] += block.signs[i] != 0 ? -element : element;
  }
}

template <class T>
void add_blocks(const SketchedBlock* blocks, int count, double* buckets) {
  bool whole = count == kSketchGroup;
  for (int i = 0; i < count; ++i) whole &= blocks[i].elements == kBuckets;
  if (whole) return add_whole<T, kSketchGroup>(blocks, buckets);
  for (int i = 0; i < count; ++i) {
    if (blocks[i].elements == kBuckets)
      add_whole<T, 1>(blocks + i, buckets);
    else
      add_part<T>(blocks[i], buckets);
  }
}

}  // namespace

// Every bucket takes what the blocks, at most kSketchGroup, have for it, in their order. dtype: of
// all of them.
void sketch_blocks(Dtype dtype, const SketchedBlock* blocks, int count, double* buckets) {
  switch (dtype) {
    case Dtype::float64:
      return add_blocks<double>(blocks, count, buckets);
    case Dtype::float32:
      return add_blocks<float>(blocks, count, buckets);
    case Dtype::bfloat16:
      return add_blocks<Bfloat16>(blocks, count, buckets);
    default:
      return add_blocks<Float16>(blocks, count, buckets);
  }
}

}  // namespace ndp::NDP_ISA
