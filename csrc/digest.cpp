#include "digest.hpp"

#include <bit>
#include <cstdio>
#include <cstring>
#include <memory>

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
  // Kept by each thread: asked for anew, its pages would be taken and filled with zeros every time.
  static thread_local const std::unique_ptr<unsigned char[]> buffer(
      new unsigned char[kGathered * kBlockBytes]);
  while (block < end) {
    const int64_t count = end - block < kGathered ? end - block : kGathered;
    const int64_t first = block * kBlockBytes;
    const int64_t left = source.bytes - first;
    const int64_t room = count * kBlockBytes;
    const int64_t filled = left < room ? left : room;
    source.gather.copy(first / source.size, filled / source.size, buffer.get());
    std::memset(buffer.get() + filled, 0, room - filled);
    hash_blocks(buffer.get(), count, kKeys, pair.values);
    block += count;
  }
  return pair;
}

// A tensor on its way: its header is in the polynomials already.
struct Job {
  Source source;
  int64_t blocks;
  Pair all;
};

Job job_of(const DigestedTensor& tensor) {
  const int64_t size = element_bytes(tensor.dtype);
  int64_t bytes = size;
  for (int64_t count : tensor.layout.shape) bytes *= count;
  Job job{{static_cast<const unsigned char*>(tensor.data), size, bytes,
           Gather(tensor.data, tensor.layout, size)},
          (bytes + kBlockBytes - 1) / kBlockBytes,
          {}};
  job.all.values[0] = job.all.values[1] = 1;  // sequences of different lengths differ in degree
  job.all.append_both(static_cast<uint64_t>(tensor.dtype));
  job.all.append_both(tensor.layout.shape.size());
  for (int64_t count : tensor.layout.shape) job.all.append_both(static_cast<uint64_t>(count));
  return job;
}

// Blocks [start, end) of one job, which one worker takes.
struct Piece {
  size_t job;
  int64_t start, end;
  Pair run;
};

// Pieces for `workers`, as many blocks to each, in the order of the jobs' blocks; and where those of
// every worker begin, with the end of the last.
struct Cut {
  std::vector<Piece> pieces;
  std::vector<size_t> begins;
};

Cut cut_up(const std::vector<Job>& jobs, int64_t blocks, int workers) {
  Cut cut;
  size_t job = 0;
  int64_t before = 0;  // blocks of the jobs before this one
  for (int worker = 0; worker < workers; ++worker) {
    cut.begins.push_back(cut.pieces.size());
    int64_t at = blocks * worker / workers;
    const int64_t end = blocks * (worker + 1) / workers;
    while (at < end) {
      for (; before + jobs[job].blocks <= at; ++job) before += jobs[job].blocks;
      const int64_t last = before + jobs[job].blocks < end ? before + jobs[job].blocks : end;
      cut.pieces.push_back({job, at - before, last - before, {}});
      at = last;
    }
  }
  cut.begins.push_back(cut.pieces.size());
  return cut;
}

}  // namespace

std::vector<DigestWords> digests(const std::vector<DigestedTensor>& tensors, int threads,
                                 const std::string& isa) {
  const HashBlocks hash_blocks = level_of(isa);
  std::vector<Job> jobs;
  jobs.reserve(tensors.size());
  int64_t blocks = 0;
  for (const DigestedTensor& tensor : tensors) {
    jobs.push_back(job_of(tensor));
    blocks += jobs.back().blocks;
  }
  if (threads > blocks) threads = static_cast<int>(blocks);
  if (threads <= 1) {
    for (Job& job : jobs)
      job.all.append_blocks(hash_range(job.source, 0, job.blocks, hash_blocks), job.blocks);
  } else {
    Cut cut = cut_up(jobs, blocks, threads);
    parallel_run(threads, [&](int worker) {
      for (size_t i = cut.begins[worker]; i < cut.begins[worker + 1]; ++i) {
        Piece& piece = cut.pieces[i];
        piece.run = hash_range(jobs[piece.job].source, piece.start, piece.end, hash_blocks);
      }
    });
    for (const Piece& piece : cut.pieces)
      jobs[piece.job].all.append_blocks(piece.run, piece.end - piece.start);
  }
  std::vector<DigestWords> found;
  found.reserve(jobs.size());
  for (Job& job : jobs) {
    finish(job.all.values[0], job.all.values[1]);
    found.push_back({job.all.values[0], job.all.values[1]});
  }
  return found;
}

std::string digest(Dtype dtype, const void* data, const Layout& layout, int threads,
                   const std::string& isa) {
  const DigestWords words = digests({{dtype, data, layout}}, threads, isa)[0];
  char hex[33];
  std::snprintf(hex, sizeof hex, "%016llx%016llx", static_cast<unsigned long long>(words.first),
                static_cast<unsigned long long>(words.second));
  return hex;
}

}  // namespace ndp
