#include "digest.hpp"

#include <bit>
#include <cstdio>
#include <cstring>

#include "gather.hpp"
#include "isa.hpp"
#include "levels.hpp"
#include "parallel.hpp"

namespace ndp {

static_assert(std::endian::native == std::endian::little, "the format is little-endian bytes");

#define NDP_DECLARE(level)                                       \
  namespace level {                                              \
  BlockHash hash_block(const unsigned char*, const uint32_t*);   \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

constexpr DigestKeys kKeys = digest_keys();
constexpr int64_t kGathered = 64;  // blocks gathered at a time, 256 KB: fits a level-2 cache

using HashBlock = decltype(&portable::hash_block);

HashBlock level_of(const std::string& isa) {
#define NDP_ENTRY(level) level::hash_block,
  static const HashBlock levels[] = {NDP_EACH_LEVEL(NDP_ENTRY)};
#undef NDP_ENTRY
  static const Isa preferred = choose_isa("");  // asked once a process: this runs per tensor
  return levels[static_cast<int>(isa.empty() ? preferred : choose_isa(isa))];
}

// The two polynomials of a run of coefficients.
struct Pair {
  Polynomial of[2];

  void append(const BlockHash& hash) {
    for (int j = 0; j < 2; ++j) of[j].append_halves(kKeys.points[j], hash.sum[j]);
  }
  void append_both(uint64_t word) {
    for (int j = 0; j < 2; ++j) of[j].append_halves(kKeys.points[j], word);
  }
  void append_run(const Pair& next) {
    for (int j = 0; j < 2; ++j) of[j].append_run(kKeys.points[j], next.of[j]);
  }
};

// What the blocks are made of.
struct Source {
  const unsigned char* data;
  int64_t size;   // bytes of one element
  int64_t bytes;  // of all elements
  Gather gather;
};

// Blocks [start, end) of the tensor; the last one is filled up with zeros.
//
// The polynomials take up a block at once: their chain of products is in flight while the next
// block is being read. (Collected for 16 blocks first, it cost 5 % of the whole.)
Pair hash_range(const Source& source, int64_t start, int64_t end, HashBlock hash_block) {
  Pair pair;
  const int64_t in_place = source.gather.contiguous() ? source.bytes / kBlockBytes : 0;
  int64_t block = start;
  for (; block < end && block < in_place; ++block)
    pair.append(hash_block(source.data + block * kBlockBytes, kKeys.words));
  std::vector<unsigned char> buffer;
  while (block < end) {
    const int64_t first = block * kBlockBytes;
    const int64_t left = source.bytes - first;
    const int64_t room = (end - block < kGathered ? end - block : kGathered) * kBlockBytes;
    const int64_t filled = left < room ? left : room;
    if (buffer.empty()) buffer.resize(room);
    source.gather.copy(first / source.size, filled / source.size, buffer.data());
    std::memset(buffer.data() + filled, 0, room - filled);
    for (int64_t at = 0; at < filled; at += kBlockBytes, ++block)
      pair.append(hash_block(buffer.data() + at, kKeys.words));
  }
  return pair;
}

}  // namespace

std::string digest(Dtype dtype, const void* data, const Layout& layout, int threads,
                   const std::string& isa) {
  const HashBlock hash_block = level_of(isa);
  const int64_t size = element_bytes(dtype);
  int64_t bytes = size;
  for (int64_t count : layout.shape) bytes *= count;
  const Source source{static_cast<const unsigned char*>(data), size, bytes,
                      Gather(data, layout, size)};
  const int64_t blocks = (bytes + kBlockBytes - 1) / kBlockBytes;

  Pair all;
  all.of[0].value = all.of[1].value = 1;  // sequences of different lengths differ in degree
  all.append_both(static_cast<uint64_t>(dtype));
  all.append_both(layout.shape.size());
  for (int64_t count : layout.shape) all.append_both(static_cast<uint64_t>(count));
  if (threads > blocks) threads = static_cast<int>(blocks);
  if (threads <= 1) {
    all.append_run(hash_range(source, 0, blocks, hash_block));
  } else {
    std::vector<Pair> runs(threads);
    parallel_run(threads, [&](int worker) {
      runs[worker] = hash_range(source, blocks * worker / threads,
                                blocks * (worker + 1) / threads, hash_block);
    });
    for (const Pair& run : runs) all.append_run(run);
  }
  uint64_t a = all.of[0].value;
  uint64_t b = all.of[1].value;
  finish(a, b);
  char hex[33];
  std::snprintf(hex, sizeof hex, "%016llx%016llx", static_cast<unsigned long long>(a),
                static_cast<unsigned long long>(b));
  return hex;
}

}  // namespace ndp
