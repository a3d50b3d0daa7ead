// Blocks into buckets, compiled once for each ISA level.
//
// The buckets are gone through in order, and each vector of them takes what eight blocks have for
// it, one block after the other. So the buckets are read and written once for eight blocks, and a
// block is read as two stretches in the order of memory: from where the first bucket falls to its
// end, and from its beginning.
//
// Operation budget of one 64-byte line (16 fp32) in AVX-512: 1 prefetch, 2 loads that convert, 2
// loads of sign bits into masks, 2 copies and 2 changes of sign, 2 additions; an eighth of 2 loads
// and 2 stores of buckets: 12 instructions, 4 cycles (the conversions take 2 of them each). The
// buckets (32 KB) do not stay in a level-1 cache of 32 KB beside the data, the signs (9 KB) do: 16
// bytes of buckets in, 16 out, and the line itself are 3 cycles at 32 bytes each. Main memory
// delivers a line in about 7 cycles, so the prediction is: bound by memory, 1.0 to 1.2 times the
// time of torch.sum; the limit that it must keep is 1.5.
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

#if NDP_VECTOR_BYTES == 64

// kDoubles elements as fp64, negative ones where a bit of `signs` is set.
template <class T>
NDP_INLINE Doubles signed_values(const T* x, const uint8_t* signs, int) {
  const __m512i values = (__m512i)doubles(x);
  return (Doubles)_mm512_mask_xor_epi64(values, *signs, values,
                                        _mm512_set1_epi64(INT64_MIN));
}

#else

// The sign bits of kDoubles elements, for every number that says which are negative.
struct SignTable {
  alignas(64) uint64_t words[1 << kDoubles][kDoubles];
};

constexpr SignTable sign_table() {
  SignTable table{};
  for (int number = 0; number < 1 << kDoubles; ++number)
    for (int lane = 0; lane < kDoubles; ++lane)
      table.words[number][lane] = static_cast<uint64_t>(number >> lane & 1) << 63;
  return table;
}

constexpr SignTable kTable = sign_table();

// kDoubles elements as fp64, negative ones where a bit of `signs`, from bit `shift` on, is set.
template <class T>
NDP_INLINE Doubles signed_values(const T* x, const uint8_t* signs, int shift) {
  const int number = *signs >> shift & ((1 << kDoubles) - 1);
  return (Doubles)((Words)doubles(x) ^ load<Words>(kTable.words[number]));
}

#endif

// What is taken of a block at a time: a line of 64 bytes, if it is not too many registers of sums.
template <class T>
constexpr int kVectors = 64 / int(sizeof(T)) <= kDoubles       ? 1
                         : 64 / int(sizeof(T)) >= 4 * kDoubles ? 4
                                                               : 64 / int(sizeof(T)) / kDoubles;
template <class T>
constexpr int kTaken = kVectors<T> * kDoubles;

// Adds to the sums of buckets `at` on what comes there from `x` on.
template <class T>
NDP_INLINE void take(const T* x, const uint8_t* signs, int64_t at, Doubles* sums) {
#pragma GCC unroll 4
  for (int v = 0; v < kVectors<T>; ++v)
    sums[v] += signed_values(x + v * kDoubles, signs + (at + v * kDoubles) / 8,
                             static_cast<int>((at + v * kDoubles) % 8));
}

template <class T, int count>
void add_whole(const SketchedBlock* blocks, double* buckets) {
  // What the group after this one reads at these places, if it lies behind it, is asked for
  // meanwhile: into the level-2 cache, since no other has the room. Main memory is then read at 1.7
  // times the speed. Past the end of the tensor it is no fault.
  constexpr int64_t kAhead = int64_t{count} * kBuckets * sizeof(T);
  for (int64_t bucket = 0; bucket < kBuckets;) {
    // Up to where the first of the blocks ends, all are read on and on.
    const T* x[count];
    const uint8_t* signs[count];
    int64_t far = kBuckets - bucket;
    for (int i = 0; i < count; ++i) {
      const int64_t at = (bucket - blocks[i].rotation) & (kBuckets - 1);
      if (kBuckets - at < far) far = kBuckets - at;
      x[i] = static_cast<const T*>(blocks[i].data) + at;
      signs[i] = blocks[i].signs;
    }
    far = far / kTaken<T> * kTaken<T>;
    Doubles sums[kVectors<T>];
    for (int64_t step = 0; step < far; step += kTaken<T>) {
      std::memcpy(sums, buckets + bucket + step, sizeof sums);
#pragma GCC unroll 8
      for (int i = 0; i < count; ++i) {
        __builtin_prefetch(
            reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(x[i] + step) + kAhead), 0, 2);
        take(x[i] + step, signs[i], bucket + step, sums);
      }
      std::memcpy(buckets + bucket + step, sums, sizeof sums);
    }
    bucket += far;
    if (bucket == kBuckets) break;
    std::memcpy(sums, buckets + bucket, sizeof sums);
    for (int i = 0; i < count; ++i) {
      const T* from = static_cast<const T*>(blocks[i].data);
      T joined[kTaken<T>];
      for (int j = 0; j < kTaken<T>; ++j)
        joined[j] = from[(bucket + j - blocks[i].rotation) & (kBuckets - 1)];
      take(joined, blocks[i].signs, bucket, sums);
    }
    std::memcpy(buckets + bucket, sums, sizeof sums);
    bucket += kTaken<T>;
  }
}

// Of a block that is not whole: what is not there would add zero.
template <class T>
void add_part(const SketchedBlock& block, double* buckets) {
  const T* x = static_cast<const T*>(block.data);
  for (int i = 0; i < block.elements; ++i) {
    const double element = value(x[i]);
    const int bucket = (block.rotation + i) & (kBuckets - 1);
    const bool negative = (block.signs[bucket / 8] >> bucket % 8 & 1) != 0;
    buckets[bucket] += negative ? -element : element;
  }
}

template <class T>
void add_blocks(const SketchedBlock* blocks, int count, double* buckets) {
  for (int i = 0; i < count;) {
    int whole = 0;
    while (i + whole < count && blocks[i + whole].elements == kBuckets) ++whole;
    if (whole == 8) {
      add_whole<T, 8>(blocks + i, buckets);
      i += 8;
    } else if (whole >= 4) {
      add_whole<T, 4>(blocks + i, buckets);
      i += 4;
    } else if (whole != 0) {
      add_whole<T, 1>(blocks + i++, buckets);
    } else {
      add_part<T>(blocks[i++], buckets);
    }
  }
}

static_assert(kSketchGroup == 8);

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
