#include "compare.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "float_mode.hpp"
#include "isa.hpp"
#include "levels.hpp"
#include "parallel.hpp"

namespace ndp {

#define NDP_DECLARE(level)                                                                     \
  namespace level {                                                                            \
  Compared compare_chunk(Dtype, const unsigned char*, const unsigned char*, int64_t);          \
  void ulp_distance(Dtype, const unsigned char*, const unsigned char*, int64_t, int64_t*);     \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

struct Level {
  decltype(&portable::compare_chunk) compare_chunk;
  decltype(&portable::ulp_distance) ulp_distance;
};

const Level& level_of(const std::string& isa) {
#define NDP_ENTRY(level) {level::compare_chunk, level::ulp_distance},
  static const Level levels[] = {NDP_EACH_LEVEL(NDP_ENTRY)};
#undef NDP_ENTRY
  static const Isa preferred = choose_isa("");  // asked once a process: this runs per tensor
  return levels[static_cast<int>(isa.empty() ? preferred : choose_isa(isa))];
}

void merge(Compared& all, const Compared& chunk, int64_t start) {
  if (all.first < 0 && chunk.first >= 0) all.first = start + chunk.first;
  all.different += chunk.different;
  if (chunk.max_ulp > all.max_ulp) all.max_ulp = chunk.max_ulp;
  all.sum_squares_difference += chunk.sum_squares_difference;
  all.sum_squares += chunk.sum_squares;
  all.sum_squares_other += chunk.sum_squares_other;
  all.dot += chunk.dot;
  for (int bucket = 0; bucket < kUlpBuckets; ++bucket) all.ulps[bucket] += chunk.ulps[bucket];
}

Compared compare_real(Dtype dtype, const unsigned char* a, const unsigned char* b,
                      int64_t elements, int threads, const Level& level) {
  const int64_t size = element_bytes(dtype);
  const int64_t chunks = (elements + kCompareChunk - 1) / kCompareChunk;
  const auto one = [&](int64_t chunk) {
    const int64_t start = chunk * kCompareChunk;
    const int64_t count = elements - start < kCompareChunk ? elements - start : kCompareChunk;
    return level.compare_chunk(dtype, a + start * size, b + start * size, count);
  };
  Compared all;
  if (threads > chunks) threads = static_cast<int>(chunks);
  if (threads <= 1) {
    const DefaultFloatMode mode;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) merge(all, one(chunk), chunk * kCompareChunk);
    return all;
  }
  std::vector<Compared> found(chunks);
  parallel_run(threads, [&](int worker) {
    const DefaultFloatMode mode;
    const int64_t end = chunks * (worker + 1) / threads;
    for (int64_t chunk = chunks * worker / threads; chunk < end; ++chunk) found[chunk] = one(chunk);
  });
  const DefaultFloatMode mode;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) merge(all, found[chunk], chunk * kCompareChunk);
  return all;
}

// The real dtype of the halves of a complex one.
Dtype half_of(Dtype dtype) {
  if (dtype == Dtype::complex32) return Dtype::float16;
  return dtype == Dtype::complex64 ? Dtype::float32 : Dtype::float64;
}

}  // namespace

Compared compare(Dtype dtype, const void* a, const void* b, int64_t elements, int threads,
                 const std::string& isa) {
  const Level& level = level_of(isa);
  const auto* bytes_a = static_cast<const unsigned char*>(a);
  const auto* bytes_b = static_cast<const unsigned char*>(b);
  Compared found;
  if (dtype < Dtype::complex32) {
    found = compare_real(dtype, bytes_a, bytes_b, elements, threads, level);
  } else {
    found = compare_real(half_of(dtype), bytes_a, bytes_b, 2 * elements, threads, level);
    // A complex element differs once, however many of its halves do.
    const int64_t size = element_bytes(dtype);
    if (found.first >= 0) found.first /= 2;
    found.different = 0;
    for (int64_t i = found.first; i >= 0 && i < elements; ++i)
      found.different += std::memcmp(bytes_a + i * size, bytes_b + i * size, size) != 0;
  }
  // NaN has one form here: which of two NaNs an addition keeps is the processor's choice.
  for (double* sum : {&found.sum_squares_difference, &found.sum_squares, &found.sum_squares_other,
                      &found.dot})
    if (std::isnan(*sum)) *sum = std::numeric_limits<double>::quiet_NaN();
  return found;
}

void ulp_distance(Dtype dtype, const void* a, const void* b, int64_t elements, int64_t* distances,
                  const std::string& isa) {
  level_of(isa).ulp_distance(dtype, static_cast<const unsigned char*>(a),
                             static_cast<const unsigned char*>(b), elements, distances);
}

}  // namespace ndp
