// The read loops, compiled once for each ISA level.
//
// Operation budget of one 64-byte line in AVX-512: from cache 1 instruction, a load with its
// exclusive or; from memory 4, since narrow loads leave more of the fetching to the prefetcher
// (sum_lanes.hpp), and that many are free there.
#include <cstdint>
#include <cstring>

#include "simd.hpp"
#include "stream.hpp"

namespace ndp::NDP_ISA {

namespace {

// The compiler's own vectors; lanes are put together at the end, which any width can be.
#if NDP_VECTOR_BYTES
typedef uint64_t Wide __attribute__((vector_size(NDP_VECTOR_BYTES)));
typedef uint64_t Narrow __attribute__((vector_size(16)));
#else
using Wide = uint64_t;
using Narrow = uint64_t;
#endif

// Exclusive or of `bytes`, a multiple of 4 registers.
template <class Register>
uint64_t read(const unsigned char* data, int64_t bytes) {
  Register sums[4] = {};
  for (const unsigned char* end = data + bytes; data < end; data += sizeof sums)
    for (unsigned i = 0; i < 4; ++i) {
      Register loaded;
      std::memcpy(&loaded, data + i * sizeof loaded, sizeof loaded);
      sums[i] ^= loaded;
    }
  uint64_t lanes[sizeof sums / 8];
  std::memcpy(lanes, sums, sizeof sums);
  uint64_t all = 0;
  for (uint64_t lane : lanes) all ^= lane;
  return all;
}

}  // namespace

uint64_t read_cached(const unsigned char* data, int64_t bytes) { return read<Wide>(data, bytes); }

uint64_t read_far(const unsigned char* data) {
  constexpr int64_t kVisit = 2048;
  constexpr int64_t kRun = kStreamPiece / kStreamRuns;
  uint64_t all = 0;
  for (int64_t first = 0; first < kRun; first += kVisit)
    for (int run = 0; run < kStreamRuns; ++run)
      all ^= read<Narrow>(data + run * kRun + first, kVisit);
  return all;
}

}  // namespace ndp::NDP_ISA
