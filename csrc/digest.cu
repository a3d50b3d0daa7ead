// Digests on the device. A warp takes a block of 4096 bytes at a time, in turn with all others over
// all tensors of a launch, and appends its sums to polynomials of its own: Horner's rule with the
// power of the point that skips the others' blocks. Values mod p come together by integer
// additions, in any order, so that the grid does not matter.
//
// What it may cost: an H200 reads about 21 bytes a cycle and processor, so a block takes some 195
// cycles, in which four schedulers issue 780 instructions. A block needs about 300: 8 loads of 512
// bytes, 12 instructions with each, and 150 to add up lanes and for two products mod p. So memory
// is the limit, if enough of it is on its way: 4 KB for each of some 16 warps, 64 KB.
#include "digest_device.hpp"

#include <algorithm>
#include <stdexcept>

#include "digest_math.hpp"

namespace ndp {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocksAProcessor = 2;  // the keys and the data of a block fill the registers
constexpr int kLaneWords = 4;         // 16 bytes
constexpr int kSteps = kBlockWords / (kWarp * kLaneWords);
// Lanes side by side in a line of 64 bytes: the second sum pairs words a line apart.
constexpr int kLineLanes = kLineWords / kLaneWords;

__device__ constexpr DigestKeys kKeys = digest_keys();

// A tensor. `first`: its first block, counted over all tensors of the launch. header: of both
// polynomials, the values before the first block.
struct Entry {
  const unsigned char* data;
  int64_t bytes;
  int64_t first;
  uint64_t header[2];
};

// Handed over with the launch, which has room for 4 KB.
constexpr int kEntries = 96;
struct Table {
  Entry entry[kEntries];
  int count;
  int64_t blocks;
};
static_assert(sizeof(Table) <= 4000);

__host__ __device__ inline int64_t blocks_of(int64_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes;
}

// The values of a tensor's blocks, in two halves, so that 2^32 of them add up without a carry.
struct Total {
  int64_t low[2], high[2];
};
struct Room {
  unsigned arrived;
  Total total[kEntries];
};

__device__ inline void add_to(Total& total, int j, uint64_t value) {
  atomic_add(&total.low[j], static_cast<int64_t>(value & 0xffffffff));
  atomic_add(&total.high[j], static_cast<int64_t>(value >> 32));
}

__device__ inline uint64_t value_of(const Total& total, int j) {
  const uint64_t low = static_cast<uint64_t>(total.low[j]);
  const uint64_t high = static_cast<uint64_t>(total.high[j]);
  const auto reduced = [](uint64_t x) { return add_mod(x & kPrime, x >> 61); };
  return add_mod(mul_mod(reduced(high), uint64_t{1} << 32), reduced(low));
}

// The last tensor that begins at this block or before: not one without blocks.
__device__ inline int find(const Table& table, int64_t block) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.entry[middle].first <= block)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// The lane's words of every step. `left` bytes lie behind `block`, zeros behind them.
__device__ inline void read_block(const unsigned char* block, int64_t left, int lane,
                                  uint32_t (&words)[kSteps][kLaneWords]) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(block);
  if (left >= kBlockBytes && address % 16 == 0) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const unsigned char* from = block + (step * kWarp + lane) * 16;
#if defined(__CUDA_ARCH__)
      const uint4 read = __ldg(reinterpret_cast<const uint4*>(from));
      std::memcpy(words[step], &read, 16);
#else
      std::memcpy(words[step], from, 16);
#endif
    }
    return;
  }
  const bool whole_words = address % 4 == 0;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kLaneWords; ++i) {
      const int64_t at = ((step * kWarp + lane) * kLaneWords + i) * 4;
      if (whole_words && at + 4 <= left) {
        words[step][i] = *reinterpret_cast<const uint32_t*>(block + at);
        continue;
      }
      uint32_t word = 0;
      for (int byte = 0; byte < 4; ++byte)
        if (at + byte < left) word |= static_cast<uint32_t>(block[at + byte]) << 8 * byte;
      words[step][i] = word;
    }
  }
}

// The sums of one block: the first in lanes 0 to 15, the second in the others.
__device__ inline uint64_t sum_block(const uint32_t (&words)[kSteps][kLaneWords],
                                     const uint32_t (&keys)[kSteps][kLaneWords],
                                     const uint32_t (&ends)[kLaneWords], int lane) {
  constexpr int kLastLine = kWarp - kLineLanes;
  uint64_t first = 0, second = 0;
  // What words at even places meet a line later; of the last line of a step, in the next step.
  uint32_t waiting[2] = {ends[0], ends[2]};
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const uint32_t a = words[step][2 * pair] + keys[step][2 * pair];
      const uint32_t b = words[step][2 * pair + 1] + keys[step][2 * pair + 1];
      const uint32_t before = __shfl_sync(kAllLanes, lane >= kLastLine ? waiting[pair] : a,
                                          (lane + kLastLine) % kWarp);
      first += uint64_t{a} * b;
      second += uint64_t{before} * b;
      waiting[pair] = a;
    }
  }
  if (lane >= kLastLine)
    second += uint64_t{waiting[0]} * ends[1] + uint64_t{waiting[1]} * ends[3];
  uint64_t sum = lane < 16 ? first : second;
  sum += __shfl_xor_sync(kAllLanes, lane < 16 ? second : first, 16);
#pragma unroll
  for (int by = 8; by > 0; by /= 2) sum += __shfl_xor_sync(kAllLanes, sum, by);
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    digest_tensors(const __grid_constant__ Table table, Room* room, uint64_t* digests) {
  NDP_SHARED(int, last_entry, kWarps);
  NDP_SHARED(uint64_t, last_value, 2 * kWarps);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t warps = int64_t{gridDim.x} * kWarps;
  uint32_t keys[kSteps][kLaneWords], ends[kLaneWords];
#pragma unroll
  for (int i = 0; i < kLaneWords; ++i) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
      keys[step][i] = kKeys.words[(step * kWarp + lane) * kLaneWords + i];
    ends[i] = kKeys.words[kBlockWords + lane % kLineLanes * kLaneWords + i];
  }
  const int j = lane / 16;
  const uint64_t point = kKeys.points[j];
  const uint64_t skip = append_run(1, point, 0, 2 * static_cast<uint64_t>(warps));

  int at = -1;
  int64_t end = 0;  // of the tensor's blocks
  uint64_t value = 0;
  const int64_t start = int64_t{blockIdx.x} * kWarps + warp;
  // The value, moved past the tensor's blocks behind the last one that this warp had.
  const auto placed = [&] {
    const uint64_t behind = static_cast<uint64_t>((end - 1 - start) % warps);
    return append_run(value, point, 0, 2 * behind);
  };
  for (int64_t block = start; block < table.blocks; block += warps) {
    if (block >= end) {
      if (at >= 0 && lane % 16 == 0) add_to(room->total[at], j, placed());
      at = find(table, block);
      end = table.entry[at].first + blocks_of(table.entry[at].bytes);
      value = 0;
    }
    const int64_t offset = (block - table.entry[at].first) * kBlockBytes;
    uint32_t words[kSteps][kLaneWords];
    read_block(table.entry[at].data + offset, table.entry[at].bytes - offset, lane, words);
    const uint64_t sum = sum_block(words, keys, ends, lane);
    value = append(value, skip, append(sum & 0xffffffff, point, sum >> 32));
  }

  // Most warps of a block end in the same tensor, and all blocks at about the same time.
  if (lane % 16 == 0) {
    last_value[2 * warp + j] = at >= 0 ? placed() : 0;
    last_entry[warp] = at;
  }
  __syncthreads();
  if (threadIdx.x < 2 * kWarps) {
    const int own = static_cast<int>(threadIdx.x) / 2, of = static_cast<int>(threadIdx.x) % 2;
    const int entry = last_entry[own];
    bool first = entry >= 0;
    for (int other = 0; other < own; ++other) first = first && last_entry[other] != entry;
    if (first) {
      uint64_t sum = 0;
      for (int other = own; other < kWarps; ++other)
        if (last_entry[other] == entry) sum = add_mod(sum, last_value[2 * other + of]);
      add_to(room->total[entry], of, sum);
    }
  }

  if (!last_block(&room->arrived, gridDim.x)) return;
  for (int i = static_cast<int>(threadIdx.x); i < table.count; i += kThreads) {
    const uint64_t blocks = static_cast<uint64_t>(blocks_of(table.entry[i].bytes));
    uint64_t values[2];
    for (int of = 0; of < 2; ++of)
      values[of] = append_run(table.entry[i].header[of], kKeys.points[of],
                              value_of(room->total[i], of), 2 * blocks);
    finish(values[0], values[1]);
    digests[2 * i] = values[0];
    digests[2 * i + 1] = values[1];
  }
}

Entry entry_of(const DeviceTensor& tensor, int64_t first) {
  constexpr DigestKeys keys = digest_keys();
  const int64_t size = element_bytes(tensor.dtype);
  if (size == 0) throw std::invalid_argument("digest: this number is no dtype");
  Entry entry{static_cast<const unsigned char*>(tensor.data), size, first, {1, 1}};
  const auto append_both = [&](uint64_t number) {
    for (int j = 0; j < 2; ++j)
      entry.header[j] = append_halves(entry.header[j], keys.points[j], number);
  };
  append_both(static_cast<uint64_t>(tensor.dtype));
  append_both(tensor.shape.size());
  for (const int64_t count : tensor.shape) {
    append_both(static_cast<uint64_t>(count));
    entry.bytes *= count;
  }
  return entry;
}

}  // namespace

int64_t digest_workspace() { return sizeof(Room); }

void digest(const std::vector<DeviceTensor>& tensors, void* workspace, uint64_t* digests, int blocks,
            Stream stream) {
  const int64_t most = blocks > 0 ? blocks : blocks_at_once(kBlocksAProcessor);
  auto* room = static_cast<Room*>(workspace);
  for (size_t done = 0; done < tensors.size(); done += kEntries) {
    Table table{};
    for (size_t i = done; i < tensors.size() && i < done + kEntries; ++i) {
      table.entry[table.count] = entry_of(tensors[i], table.blocks);
      table.blocks += blocks_of(table.entry[table.count++].bytes);
    }
    clear_on(stream, room, sizeof *room);
    const int64_t grid = std::clamp<int64_t>((table.blocks + kWarps - 1) / kWarps, 1, most);
    NDP_LAUNCH((digest_tensors), static_cast<unsigned>(grid), kThreads, stream, table, room,
               digests + 2 * done);
  }
}

}  // namespace ndp
