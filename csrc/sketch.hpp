// A count-sketch of many tensors in 4,096 buckets: docs/sketch.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "digest.hpp"
#include "dtypes.hpp"

namespace ndp {

constexpr int kBuckets = 4096;    // and elements of a block
constexpr int kRunBlocks = 64;   // added left to right from zero; then the runs are
constexpr int kSketchGroup = 8;  // whole blocks that go through the buckets together
constexpr uint64_t kSketchSeed = 0x312d6b732d70646eULL;  // "ndp-sk-1" as little-endian bytes

// Of float64, float32, bfloat16 or float16. seed: of its name.
struct SketchedTensor {
  Dtype dtype;
  const void* data;
  Layout layout;
  uint64_t seed;
};

// A block on its way into the buckets: `elements` of them at `data`, without gaps; the bucket of the
// first; and a bit for each bucket, in bytes from the lowest bit up: set where what comes there
// changes its sign.
struct SketchedBlock {
  const void* data;
  int elements;
  int rotation;
  const uint8_t* signs;
};

// Into buckets[kBuckets]. The same for every level, thread count and layout. A NaN is the positive
// quiet one without payload.
void sketch(const std::vector<SketchedTensor>& tensors, int threads, const std::string& isa,
            double* buckets);

}  // namespace ndp
