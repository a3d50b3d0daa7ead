// Which kernel runs, on how many threads, and how the parts of long segments come together.
#include "segment_sum.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "float_mode.hpp"
#include "isa.hpp"
#include "formats.hpp"
#include "levels.hpp"
#include "narrow.hpp"
#include "parallel.hpp"
#include "sum.hpp"

namespace ndp {

NDP_KERNELS(SegmentKernels, segment_kernels)

namespace {

// Rows that a worker of `atomic` adds up by itself before it adds to what is shared.
constexpr int64_t kAtomicRows = 64;
// What a worker takes at a time.
constexpr int64_t kSegmentPieceBytes = int64_t{1} << 18;

struct Job : Segments {
  SegmentKernels kernels;
  Format format;
  int threads;
  char* result;

  int64_t bytes() const { return element_bytes(dtype); }
  const char* at(int64_t row, int64_t column = 0) const {
    return static_cast<const char*>(data) + (row * columns + column) * bytes();
  }
  int64_t rows_of(int64_t segment) const { return offsets[segment + 1] - offsets[segment]; }
  template <class T>
  T* row(int64_t segment) const {
    return reinterpret_cast<T*>(result) + segment * columns;
  }
  void put(int64_t segment, int64_t column, uint64_t bits) const {
    std::memcpy(result + (segment * columns + column) * bytes(), &bits, bytes());
  }
  void put_zeros(int64_t segment) const {
    std::memset(result + segment * columns * bytes(), 0, columns * bytes());
  }
};

// Up to kSumChunk rows of one segment.
struct Chunk {
  int64_t segment;
  int64_t number;  // within its segment
  int64_t first;   // row
  int64_t rows;    // 0 only where the segment has none
};

// body(worker, chunk) for every chunk of every segment, empty ones too, a chunk being at most `most`
// rows. Workers take pieces of the data as they come free; a chunk belongs to the piece that its
// first row lies in.
template <class Body>
void each_chunk(const Job& job, int64_t most, int workers, int64_t piece, const Body& body) {
  std::atomic<int64_t> next{0};
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    for (;;) {
      const int64_t from = next.fetch_add(piece, std::memory_order_relaxed);
      if (from > job.rows) return;  // empty segments at the end start at job.rows
      const int64_t to = from + piece;
      const int64_t* end = job.offsets + job.segments;
      // The first that starts in the piece, and the one before, which may reach into it.
      int64_t segment = std::lower_bound(job.offsets, end, from) - job.offsets;
      segment -= segment > 0;
      for (; segment < job.segments && job.offsets[segment] < to; ++segment) {
        const int64_t start = job.offsets[segment];
        const int64_t rows = job.rows_of(segment);
        int64_t number = start < from ? (from - start + most - 1) / most : 0;
        for (; number == 0 || number * most < rows; ++number) {
          const int64_t first = start + number * most;
          if (first >= to) break;
          body(worker, Chunk{segment, number, first, std::min(most, rows - number * most)});
        }
      }
    }
  });
}

struct Plan {
  int64_t piece;  // rows
  int workers;
};

Plan plan_of(const Job& job) {
  const int64_t row = std::max<int64_t>(job.columns * job.bytes(), 1);
  const int64_t piece = std::max<int64_t>(kSegmentPieceBytes / row, 1);
  // Offsets and results are work as well, where segments are short.
  const int64_t bytes = job.rows * row + job.segments * (row + 8);
  return {piece, static_cast<int>(std::clamp<int64_t>(bytes / (2 * kSegmentPieceBytes), 1,
                                                      job.threads))};
}

// The segments of more than one chunk; chunk `number` of one of them is part first_part + number.
struct Long {
  int64_t segment;
  int64_t first_part;
  int64_t parts;
};

struct LongSegments {
  std::vector<Long> all;
  int64_t parts = 0;

  explicit LongSegments(const Job& job) {
    if (job.rows <= kSumChunk) return;
    for (int64_t segment = 0; segment < job.segments; ++segment) {
      const int64_t chunks = (job.rows_of(segment) + kSumChunk - 1) / kSumChunk;
      if (chunks <= 1) continue;
      all.push_back({segment, parts, chunks});
      parts += chunks;
    }
  }
  int64_t part(const Chunk& chunk) const {
    const auto found =
        std::lower_bound(all.begin(), all.end(), chunk.segment,
                         [](const Long& one, int64_t segment) { return one.segment < segment; });
    return found->first_part + chunk.number;
  }
};

template <class Partial>
void put_partials(const Job& job, int64_t segment, const Partial* sums) {
  if (job.bytes() == sizeof(Partial)) {
    Partial* row = job.row<Partial>(segment);
    for (int64_t column = 0; column < job.columns; ++column)
      row[column] = sums[column] == sums[column] ? sums[column]
                                                 : std::numeric_limits<Partial>::quiet_NaN();
  } else {
    uint16_t* row = job.row<uint16_t>(segment);
    for (int64_t column = 0; column < job.columns; ++column)
      row[column] = static_cast<uint16_t>(round_double(sums[column], job.format));
  }
}

template <class Partial>
void segment_sum_atomic(const Job& job) {
  std::vector<Partial> shared(job.segments * job.columns, -Partial{0});
  const Plan plan = plan_of(job);
  std::vector<std::vector<Partial>> own(plan.workers, std::vector<Partial>(job.columns));
  each_chunk(job, kAtomicRows, plan.workers, plan.piece, [&](int worker, const Chunk& chunk) {
    if (chunk.rows == 0) return;
    Partial* sums = own[worker].data();
    job.kernels.ordered(job.at(chunk.first), chunk.rows, job.columns, sums);
    // Who comes first decides what is added first: there is no order but that of arrival.
    for (int64_t column = 0; column < job.columns; ++column)
      std::atomic_ref<Partial>(shared[chunk.segment * job.columns + column])
          .fetch_add(sums[column], std::memory_order_relaxed);
  });
  const DefaultFloatMode mode;
  for (int64_t segment = 0; segment < job.segments; ++segment) {
    if (job.rows_of(segment) == 0)
      job.put_zeros(segment);
    else
      put_partials(job, segment, &shared[segment * job.columns]);
  }
}

template <class Partial>
void segment_sum_ordered(const Job& job) {
  const LongSegments longs(job);
  const Plan plan = plan_of(job);
  std::vector<Partial> parts(longs.parts * job.columns);
  std::vector<std::vector<Partial>> own(plan.workers, std::vector<Partial>(job.columns));
  each_chunk(job, kSumChunk, plan.workers, plan.piece, [&](int worker, const Chunk& chunk) {
    if (chunk.rows == 0) return job.put_zeros(chunk.segment);
    const bool whole = chunk.rows == job.rows_of(chunk.segment);
    Partial* sums = whole ? own[worker].data() : &parts[longs.part(chunk) * job.columns];
    job.kernels.ordered(job.at(chunk.first), chunk.rows, job.columns, sums);
    if (whole) put_partials(job, chunk.segment, sums);
  });
  const DefaultFloatMode mode;
  for (const Long& one : longs.all) {
    // Neighbours are added in rounds; the last of an odd number waits for the next round.
    Partial* part = &parts[one.first_part * job.columns];
    const auto row = [&](int64_t i) { return part + i * job.columns; };
    for (int64_t left = one.parts; left > 1; left = (left + 1) / 2) {
      for (int64_t i = 0; i < left / 2; ++i)
        for (int64_t column = 0; column < job.columns; ++column)
          row(i)[column] = row(2 * i)[column] + row(2 * i + 1)[column];
      if (left % 2 != 0 && left > 1) std::copy_n(row(left - 1), job.columns, row(left / 2));
    }
    put_partials(job, one.segment, part);
  }
}

// A column of a part that did not fit into a pair.
struct Wide {
  int64_t part;
  int64_t column;
  Superacc acc;
};

void deposit_column(const Job& job, const Chunk& chunk, int64_t column, Superacc& acc) {
  clear(acc);
  job.kernels.deposit(job.at(chunk.first, column), chunk.rows, job.columns, acc);
}

// A pair that lost nothing, rounded once.
void round_pair(const ExactPair& pair, const Format&, double& result) {
  result = pair.low == 0.0 ? pair.high : pair.high + pair.low;
}
void round_pair(const ExactPair& pair, const Format&, float& result) {
  result = static_cast<float>(pair.low == 0.0 ? pair.high : add_to_odd(pair.high, pair.low));
}
void round_pair(const ExactPair& pair, const Format& format, uint16_t& result) {
  const double sum = pair.low == 0.0 ? pair.high : add_to_odd(pair.high, pair.low);
  result = static_cast<uint16_t>(round_double(sum, format));
}

template <class T>
void put_exact(const Job& job, const Chunk& chunk, const ExactPair* pairs) {
  T* row = job.row<T>(chunk.segment);
  for (int64_t column = 0; column < job.columns; ++column) {
    const ExactPair& pair = pairs[column];
    if (pair.lost == 0.0 && pair.high == pair.high) {
      round_pair(pair, job.format, row[column]);
    } else {
      Superacc acc;
      deposit_column(job, chunk, column, acc);
      job.put(chunk.segment, column, round_to(acc, job.format, false));  // -0.0 loses nothing
    }
  }
}

template <class T>
void segment_sum_exact(const Job& job) {
  const LongSegments longs(job);
  const Plan plan = plan_of(job);
  std::vector<ExactPair> parts(longs.parts * job.columns);
  std::vector<std::vector<ExactPair>> own(plan.workers, std::vector<ExactPair>(job.columns));
  std::vector<std::vector<Wide>> wide(plan.workers);
  each_chunk(job, kSumChunk, plan.workers, plan.piece, [&](int worker, const Chunk& chunk) {
    if (chunk.rows == 0) return job.put_zeros(chunk.segment);
    const bool whole = chunk.rows == job.rows_of(chunk.segment);
    const int64_t part = whole ? 0 : longs.part(chunk);
    ExactPair* pairs = whole ? own[worker].data() : &parts[part * job.columns];
    job.kernels.exact(job.at(chunk.first), chunk.rows, job.columns, pairs);
    if (whole) return put_exact<T>(job, chunk, pairs);
    for (int64_t column = 0; column < job.columns; ++column) {
      if (pairs[column].lost == 0.0) continue;
      wide[worker].push_back({part, column, {}});
      deposit_column(job, chunk, column, wide[worker].back().acc);
      pairs[column] = {0.0, 0.0, 0.0};
    }
  });
  const DefaultFloatMode mode;
  std::vector<Wide*> others;
  for (std::vector<Wide>& of_worker : wide)
    for (Wide& one : of_worker) others.push_back(&one);
  std::sort(others.begin(), others.end(), [](const Wide* a, const Wide* b) {
    return a->part < b->part;
  });
  auto other = others.begin();
  for (const Long& one : longs.all) {
    std::vector<Superacc> sums(job.columns);
    std::vector<char> zeros(job.columns, 1);  // whether every part is -0.0
    for (Superacc& sum : sums) clear(sum);
    for (int64_t part = one.first_part; part < one.first_part + one.parts; ++part)
      for (int64_t column = 0; column < job.columns; ++column) {
        const ExactPair& pair = parts[part * job.columns + column];
        make_room(sums[column], 2);
        deposit(sums[column], pair.high);
        deposit(sums[column], pair.low);
        zeros[column] &= pair.high == 0.0 && std::signbit(pair.high);
      }
    for (; other != others.end() && (*other)->part < one.first_part + one.parts; ++other)
      merge(sums[(*other)->column], (*other)->acc);
    for (int64_t column = 0; column < job.columns; ++column)
      job.put(one.segment, column, round_to(sums[column], job.format, zeros[column]));
  }
}

}  // namespace

void segment_sum(SegmentVariant variant, const Segments& given, int threads,
                 const std::string& isa, void* result) {
  const Job job{given, segment_kernels(choose_isa(isa), given.dtype), format_of(given.dtype, "segment_sum"), threads,
                static_cast<char*>(result)};
  for (int64_t segment = 0; segment < job.segments; ++segment)
    if (job.rows_of(segment) < 0)
      throw std::invalid_argument("segment " + std::to_string(segment) + " has " +
                                  std::to_string(job.rows_of(segment)) + " rows");
  if (job.offsets[0] != 0 || job.offsets[job.segments] != job.rows)
    throw std::invalid_argument("the segments are rows " + std::to_string(job.offsets[0]) + " to " +
                                std::to_string(job.offsets[job.segments]) + ", the data has " +
                                std::to_string(job.rows) + " rows");
  if (job.columns == 0 || job.segments == 0) return;
  const bool wide = job.dtype == Dtype::float64;
  switch (variant) {
    case SegmentVariant::atomic:
      return wide ? segment_sum_atomic<double>(job) : segment_sum_atomic<float>(job);
    case SegmentVariant::ordered:
      return wide ? segment_sum_ordered<double>(job) : segment_sum_ordered<float>(job);
    default:
      break;
  }
  switch (job.bytes()) {
    case 8:
      return segment_sum_exact<double>(job);
    case 4:
      return segment_sum_exact<float>(job);
    default:
      return segment_sum_exact<uint16_t>(job);
  }
}

}  // namespace ndp
