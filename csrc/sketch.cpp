#include "sketch.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>

#include "digest_math.hpp"
#include "float_mode.hpp"
#include "gather.hpp"
#include "isa.hpp"
#include "levels.hpp"
#include "parallel.hpp"

namespace ndp {

static_assert(std::endian::native == std::endian::little, "elements are read as little-endian");

#define NDP_DECLARE(level)                                                                      \
  namespace level {                                                                             \
  void sketch_blocks(Dtype, const SketchedBlock*, int, double*);                                \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

constexpr int64_t kWave = 256;  // runs before their sums are added up: 8 MB of sums, 67M elements
constexpr uint64_t kStep = 0x9e3779b97f4a7c15ULL;  // of SplitMix64

// The signs of a block are a stretch of these, which begins at a byte of its own; and their
// opposites, for a block with its own sign changed.
struct Signs {
  uint8_t of[2][kBuckets + kBuckets / 8];
};

constexpr Signs make_signs() {
  Signs signs{};
  uint64_t state = kSketchSeed;
  for (int i = 0; i < kBuckets + kBuckets / 8; ++i) {
    if (i % 8 == 0) state += kStep;
    signs.of[0][i] = static_cast<uint8_t>(mixed(state) >> i % 8 * 8);
    signs.of[1][i] = static_cast<uint8_t>(~signs.of[0][i]);
  }
  return signs;
}

constexpr Signs kSigns = make_signs();

using SketchBlocks = decltype(&portable::sketch_blocks);

SketchBlocks level_of(const std::string& isa) {
#define NDP_ENTRY(level) level::sketch_blocks,
  static const SketchBlocks levels[] = {NDP_EACH_LEVEL(NDP_ENTRY)};
#undef NDP_ENTRY
  static const Isa preferred = choose_isa("");  // asked once a process: this runs every step
  return levels[static_cast<int>(isa.empty() ? preferred : choose_isa(isa))];
}

// A tensor whose blocks begin at number `first` of all.
struct Source {
  Dtype dtype;
  const unsigned char* data;
  int64_t size;  // bytes of one element
  int64_t elements;
  Gather gather;
  uint64_t seed;
  int64_t first;

  int64_t blocks() const { return (elements + kBuckets - 1) / kBuckets; }
};

// What a run needs room for, kept by each thread: its sum, and blocks that do not lie in order.
struct Room {
  alignas(64) double sum[kBuckets];
  alignas(64) unsigned char gathered[kSketchGroup][kBuckets * sizeof(double)];
};

// The blocks of a run, handed to the kernel as they come.
class Run {
 public:
  Run(SketchBlocks add, double* sum, Room& room) : add_(add), sum_(sum), room_(room) {
    std::fill_n(sum_, kBuckets, 0.0);
  }

  void take(const Source& source, int64_t block) {
    if (count_ == kSketchGroup || (count_ != 0 && dtype_ != source.dtype)) hand_over();
    dtype_ = source.dtype;
    const int64_t start = block * kBuckets;
    const int64_t left = source.elements - start;
    const int elements = static_cast<int>(left < kBuckets ? left : kBuckets);
    const unsigned char* data = source.data + start * source.size;
    if (!source.gather.contiguous()) {
      source.gather.copy(start, elements, room_.gathered[count_]);
      data = room_.gathered[count_];
    }
    const uint64_t drawn = mixed(source.seed + static_cast<uint64_t>(block + 1) * kStep);
    blocks_[count_++] = {data, elements, static_cast<int>(drawn % kBuckets),
                         kSigns.of[drawn >> 63] + drawn / kBuckets % kBuckets};
  }

  void hand_over() {
    add_(dtype_, blocks_, count_, sum_);
    count_ = 0;
  }

 private:
  SketchBlocks add_;
  double* sum_;
  Room& room_;
  SketchedBlock blocks_[kSketchGroup];
  int count_ = 0;
  Dtype dtype_{};
};

// Blocks [start, end) of all, into `sum`.
void add_run(const std::vector<Source>& sources, int64_t start, int64_t end, SketchBlocks add,
             double* sum, Room& room) {
  const auto after = std::upper_bound(
      sources.begin(), sources.end(), start,
      [](int64_t block, const Source& source) { return block < source.first; });
  auto source = after - 1;  // the last that begins here or before: not one without elements
  Run run(add, sum, room);
  for (int64_t block = start; block < end; ++block) {
    while (block >= source->first + source->blocks()) ++source;
    run.take(*source, block - source->first);
  }
  run.hand_over();
}

void add_to(double* buckets, const double* sum) {
  for (int i = 0; i < kBuckets; ++i) buckets[i] += sum[i];
}

Room& own_room() {
  static thread_local const std::unique_ptr<Room> room(new Room);
  return *room;
}

}  // namespace

void sketch(const std::vector<SketchedTensor>& tensors, int threads, const std::string& isa,
            double* buckets) {
  const SketchBlocks add = level_of(isa);
  std::vector<Source> sources;
  sources.reserve(tensors.size());
  int64_t blocks = 0;
  for (const SketchedTensor& tensor : tensors) {
    const int64_t size = element_bytes(tensor.dtype);
    int64_t elements = 1;
    for (int64_t count : tensor.layout.shape) elements *= count;
    sources.push_back({tensor.dtype, static_cast<const unsigned char*>(tensor.data), size, elements,
                       Gather(tensor.data, tensor.layout, size), tensor.seed, blocks});
    blocks += sources.back().blocks();
  }
  std::fill_n(buckets, kBuckets, 0.0);
  const int64_t runs = (blocks + kRunBlocks - 1) / kRunBlocks;
  const auto one = [&](int64_t run, double* sum, Room& room) {
    add_run(sources, run * kRunBlocks, std::min(blocks, (run + 1) * kRunBlocks), add, sum, room);
  };
  const DefaultFloatMode mode;
  if (threads > runs) threads = static_cast<int>(runs);
  if (threads <= 1) {
    Room& room = own_room();
    for (int64_t run = 0; run < runs; ++run) {
      one(run, room.sum, room);
      add_to(buckets, room.sum);
    }
  } else {
    // The sums of a wave of runs, then these in order: there is memory for so many only.
    const std::unique_ptr<double[]> sums(new double[std::min(kWave, runs) * kBuckets]);
    for (int64_t from = 0; from < runs; from += kWave) {
      const int64_t count = std::min(kWave, runs - from);
      std::atomic<int64_t> next{0};
      parallel_run(threads, [&](int) {
        const DefaultFloatMode mode_of_worker;
        Room& room = own_room();
        for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;)
          one(from + i, sums.get() + i * kBuckets, room);
      });
      for (int64_t i = 0; i < count; ++i) add_to(buckets, sums.get() + i * kBuckets);
    }
  }
  // NaN has one form here: which of two NaNs an addition keeps is the processor's choice.
  for (int i = 0; i < kBuckets; ++i)
    if (std::isnan(buckets[i])) buckets[i] = std::numeric_limits<double>::quiet_NaN();
}

}  // namespace ndp
