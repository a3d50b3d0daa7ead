#include "stream.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "isa.hpp"
#include "levels.hpp"
#include "parallel.hpp"

namespace ndp {

#define NDP_DECLARE(level)                                       \
  namespace level {                                              \
  /* The exclusive or of `bytes`, a multiple of kGroup. */       \
  uint64_t read_cached(const unsigned char* data, int64_t bytes); \
  /* That of kStreamPiece bytes in memory. */                    \
  uint64_t read_far(const unsigned char* data);                  \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

constexpr int64_t kGroup = 512;
constexpr int64_t kSlice = 256 << 10;  // what a worker takes where there is less than a piece

struct Reader {
  decltype(&portable::read_cached) cached;
  decltype(&portable::read_far) far;
};

Reader level_of(const std::string& isa) {
#define NDP_ENTRY(level) {level::read_cached, level::read_far},
  static const Reader levels[] = {NDP_EACH_LEVEL(NDP_ENTRY)};
#undef NDP_ENTRY
  static const Isa preferred = choose_isa("");  // asked once a process
  return levels[static_cast<int>(isa.empty() ? preferred : choose_isa(isa))];
}

}  // namespace

uint64_t read_stream(const void* data, int64_t bytes, int threads, const std::string& isa) {
  const Reader read = level_of(isa);
  const auto* start = static_cast<const unsigned char*>(data);
  const int64_t pieces = bytes / kStreamPiece;
  const int64_t first = pieces * kStreamPiece;  // of what is no whole piece
  const int64_t end = bytes / kGroup * kGroup;
  const int64_t tasks = pieces + (end - first + kSlice - 1) / kSlice;
  std::atomic<uint64_t> found{0};
  std::atomic<int64_t> next{0};
  parallel_run(static_cast<int>(std::clamp<int64_t>(tasks, 1, threads)), [&](int) {
    uint64_t mine = 0;
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      if (task < pieces) {
        mine ^= read.far(start + task * kStreamPiece);
      } else {
        const int64_t from = first + (task - pieces) * kSlice;
        mine ^= read.cached(start + from, std::min(kSlice, end - from));
      }
    }
    found ^= mine;
  });
  uint64_t all = found;
  for (int64_t i = end; i < bytes; i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, start + i, std::min<int64_t>(8, bytes - i));
    all ^= word;
  }
  return all;
}

}  // namespace ndp
