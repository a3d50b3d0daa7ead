#include "digest.hpp"

#include <bit>
#include <cstdio>
#include <cstring>

#include "digest_math.hpp"
#include "gather.hpp"
#include "isa.hpp"
#include "levels.hpp"
#include "parallel.hpp"

namespace ndp {

static_assert(std::endian::native == std::endian::little, "the format is little-endian bytes");

#define NDP_DECLARE(level)                                                              \
  namespace level {                                                                     \
  void hash_blocks(const unsigned char*, int64_t, const DigestKeys&, uint64_t*);        \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

constexpr DigestKeys kKeys = digest_keys();
constexpr int64_t kGathered = 64;  // blocks gathered at a time, 256 KB: fits a level-2 cache

using HashBlocks = decltype(&portable::hash_blocks);

HashBlocks level_of(const std::string& isa) {
#define NDP_ENTRY(level) level::hash_blocks,
  static const HashBlocks levels[] = {NDP_EACH_LEVEL(NDP_ENTRY)};
#undef NDP_ENTRY
  static const Isa preferred = choose_isa("");  // asked once a process: this runs per tensor
  return levels[static_cast<int>(isa.empty() ? preferred : choose_isa(isa))];
}

// The two polynomials of a run of blocks or of the header.
struct Pair {
  uint64_t values[2] = {0, 0};

  void append_both(uint64_t number) {
    for (int j = 0; j < 2; ++j) values[j] = append_halves(values[j], kKeys.points[j], number);
  }
  void append_blocks(const Pair& run, int64_t blocks) {
    for (int j = 0; j < 2; ++j)
      values[j] = append_run(values[j], kKeys.points[j], run.values[j], 2 * blocks);
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
Pair hash_range(const Source& source, int64_t start, int64_t end, HashBlocks hash_blocks) {
  Pair pair;
  int64_t block = start;
  const int64_t in_place = source.gather.contiguous() ? source.bytes / kBlockBytes : 0;
  if (block < in_place) {
    const int64_t count = (end < in_place ? end : in_place) - block;
    hash_blocks(source.data + block * kBlockBytes, count, kKeys, pair.values);
    block += count;
  }
  std::vector<unsigned char> buffer;
  while (block < end) {
    const int64_t count = end - block < kGathered ? end - block : kGathered;
    const int64_t first = block * kBlockBytes;
    const int64_t left = source.bytes - first;
    const int64_t room = count * kBlockBytes;
    const int64_t filled = left < room ? left : room;
    if (buffer.empty()) buffer.resize(room);
    source.gather.copy(first / source.size, filled / source.size, buffer.data());
    std::memset(buffer.data() + filled, 0, room - filled);
    hash_blocks(buffer.data(), count, kKeys, pair.values);
    block += count;
  }
  return pair;
}

}  // namespace

std::string digest(Dtype dtype, const void* data, const Layout& layout, int threads,
                   const std::string& isa) {
  const HashBlocks hash_blocks = level_of(isa);
  const int64_t size = element_bytes(dtype);
  int64_t bytes = size;
  for (int64_t count : layout.shape) bytes *= count;
  const Source source{static_cast<const unsigned char*>(data), size, bytes,
                      Gather(data, layout, size)};
  const int64_t blocks = (bytes + kBlockBytes - 1) / kBlockBytes;

  Pair all;
  all.values[0] = all.values[1] = 1;  // sequences of different lengths differ in degree
  all.append_both(static_cast<uint64_t>(dtype));
  all.append_both(layout.shape.size());
  for (int64_t count : layout.shape) all.append_both(static_cast<uint64_t>(count));
  if (threads > blocks) threads = static_cast<int>(blocks);
  if (threads <= 1) {
    all.append_blocks(hash_range(source, 0, blocks, hash_blocks), blocks);
  } else {
    std::vector<Pair> runs(threads);
    const auto start = [&](int worker) { return blocks * worker / threads; };
    parallel_run(threads, [&](int worker) {
      runs[worker] = hash_range(source, start(worker), start(worker + 1), hash_blocks);
    });
    for (int worker = 0; worker < threads; ++worker)
      all.append_blocks(runs[worker], start(worker + 1) - start(worker));
  }
  uint64_t a = all.values[0];
  uint64_t b = all.values[1];
  finish(a, b);
  char hex[33];
  std::snprintf(hex, sizeof hex, "%016llx%016llx", static_cast<unsigned long long>(a),
                static_cast<unsigned long long>(b));
  return hex;
}

}  // namespace ndp
