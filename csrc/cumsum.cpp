// Which kernel runs, on how many threads, and how chunks of a row come together; the exact sums.
#include "cumsum.hpp"

#include <stdexcept>
#include <vector>

#include "isa.hpp"
#include "levels.hpp"
#include "rounding.hpp"
#include "wideacc.hpp"
#include "workers.hpp"

namespace ndp {

#define NDP_DECLARE(level)                   \
  namespace level {                          \
  CumsumKernels cumsum_kernels(Dtype dtype); \
  }
NDP_EACH_LEVEL(NDP_DECLARE)
#undef NDP_DECLARE

namespace {

// The least that a worker is started for.
constexpr int64_t kElementsPerWorker = int64_t{1} << 15;

struct Job {
  CumsumKernels kernels;
  const Format& format;
  int64_t bytes;  // of an element
  const char* x;
  char* sums;
  int64_t rows;
  int64_t n;
  int threads;

  const char* from(int64_t row, int64_t element) const { return x + (row * n + element) * bytes; }
  char* to(int64_t row, int64_t element) const { return sums + (row * n + element) * bytes; }
  int64_t chunks() const { return (n + kScanChunk - 1) / kScanChunk; }
  int64_t in_chunk(int64_t chunk) const { return std::min(kScanChunk, n - chunk * kScanChunk); }
  int workers() const { return workers_for(rows * n / kElementsPerWorker, threads); }
  // Whether rows are too few to go round, so that the chunks of each are shared out.
  bool by_chunks() const { return rows < workers(); }
  int64_t rows_at_once() const {
    return std::max<int64_t>(kElementsPerWorker / std::max<int64_t>(n, 1), 1);
  }
};

CumsumKernels kernels_of(Isa isa, Dtype dtype) {
  switch (isa) {
#define NDP_CASE(level) \
  case Isa::level:      \
    return level::cumsum_kernels(dtype);
    NDP_EACH_LEVEL(NDP_CASE)
#undef NDP_CASE
    default:
      return portable::cumsum_kernels(dtype);
  }
}

const Format& format_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return kFormat64;
    case Dtype::float32:
      return kFormat32;
    case Dtype::bfloat16:
      return kFormatBf16;
    case Dtype::float16:
      return kFormat16;
    default:
      throw std::invalid_argument("cumsum takes float64, float32, bfloat16 and float16");
  }
}

// A row in chunks. Scanner: Total, zero(), total(row, chunk), scan(row, chunk, offset) -> total.
template <class Scanner>
void scan_row(const Job& job, const Scanner& scanner, int64_t row) {
  auto offset = scanner.zero();
  for (int64_t chunk = 0; chunk < job.chunks(); ++chunk) offset += scanner.scan(row, chunk, offset);
}

// The same by several workers: first the chunks' totals, then every chunk behind those before it.
template <class Scanner>
void scan_row_shared(const Job& job, const Scanner& scanner, int64_t row) {
  std::vector<decltype(scanner.zero())> offsets(job.chunks() + 1, scanner.zero());
  share_out(job.chunks(), 1, job.workers(), [&](int, int64_t chunk, int64_t) {
    offsets[chunk + 1] = scanner.total(row, chunk);
  });
  {
    const DefaultFloatMode mode;
    for (int64_t chunk = 0; chunk < job.chunks(); ++chunk) {
      const auto before = offsets[chunk];
      offsets[chunk + 1] = before + offsets[chunk + 1];
    }
  }
  share_out(job.chunks(), 1, job.workers(), [&](int, int64_t chunk, int64_t) {
    scanner.scan(row, chunk, offsets[chunk]);
  });
}

// ---- fixed order

template <class Partial>
struct InFloats {
  const Job& job;

  Partial zero() const { return -Partial{0}; }
  Partial total(int64_t row, int64_t chunk) const {
    Partial sum;
    job.kernels.total(job.from(row, chunk * kScanChunk), job.in_chunk(chunk), &sum);
    return sum;
  }
  Partial scan(int64_t row, int64_t chunk, Partial offset) const {
    Partial sum;
    const int64_t first = chunk * kScanChunk;
    job.kernels.scan(job.from(row, first), job.in_chunk(chunk), &offset, job.to(row, first), &sum);
    return sum;
  }
};

template <class Scanner>
void scan_rows(const Job& job, const Scanner& scanner) {
  if (job.by_chunks()) {
    for (int64_t row = 0; row < job.rows; ++row) scan_row_shared(job, scanner, row);
    return;
  }
  share_out(job.rows, job.rows_at_once(), job.workers(), [&](int, int64_t first, int64_t count) {
    for (int64_t row = first; row < first + count; ++row) scan_row(job, scanner, row);
  });
}

// ---- exact

// Rows of one format, element by element, as bit patterns and integers.
struct Reader {
  const Format& format;
  int64_t bytes;
  int fraction_bits;
  int special;  // the biased exponent of infinities and NaNs

  explicit Reader(const Job& job)
      : format(job.format),
        bytes(job.bytes),
        fraction_bits(job.format.precision - 1),
        special(static_cast<int>(job.format.infinity >> fraction_bits)) {}

  uint64_t bits(const char* at) const {
    uint64_t pattern = 0;
    std::memcpy(&pattern, at, bytes);  // little-endian, like all that is built for
    return pattern;
  }
  int biased(uint64_t pattern) const {
    return static_cast<int>((pattern & ~format.sign) >> fraction_bits);
  }
  // The element is +-significand * 2^exponent.
  uint64_t significand(uint64_t pattern) const {
    const uint64_t fraction = pattern & ((uint64_t{1} << fraction_bits) - 1);
    return biased(pattern) == 0 ? fraction : fraction | uint64_t{1} << fraction_bits;
  }
  int exponent(uint64_t pattern) const {
    return std::max(biased(pattern), 1) - 1 + format.lowest_exponent;
  }
};

// What a row looks like before it is added.
struct Range {
  bool fits;               // any of its sums is an integer of 127 bits, in units of 2^unit
  int unit;
  int64_t negative_zeros;  // how many elements, all of them -0.0, it begins with
};

Range range_of(const Job& job, const Reader& reader, int64_t row) {
  const char* at = job.from(row, 0);
  Range range{true, 0, 0};
  while (range.negative_zeros < job.n &&
         reader.bits(at + range.negative_zeros * job.bytes) == job.format.sign)
    ++range.negative_zeros;
  int least = reader.special, most = 0;
  for (int64_t i = 0; i < job.n; ++i) {
    const uint64_t pattern = reader.bits(at + i * job.bytes);
    const int biased = reader.biased(pattern);
    // Zeros have no last bit to look after.
    if ((pattern & ~job.format.sign) != 0) least = std::min(least, biased);
    most = std::max(most, biased);
  }
  range.unit = std::max(least, 1) - 1 + job.format.lowest_exponent;
  const int length = std::max(most, 1) - std::max(least, 1) + job.format.precision +
                     (64 - __builtin_clzll(static_cast<uint64_t>(job.n)));
  range.fits = most < reader.special && length <= 126;
  return range;
}

struct InIntegers {
  const Job& job;
  const Reader& reader;
  Range range;

  __int128 zero() const { return 0; }
  template <class Keep>
  __int128 add(int64_t row, int64_t chunk, __int128 sum, const Keep& keep) const {
    const int64_t first = chunk * kScanChunk;
    for (int64_t i = first; i < first + job.in_chunk(chunk); ++i) {
      const uint64_t pattern = reader.bits(job.from(row, i));
      const uint64_t significand = reader.significand(pattern);
      if (significand != 0) {
        const __int128 term = static_cast<__int128>(significand)
                              << (reader.exponent(pattern) - range.unit);
        sum += (pattern & job.format.sign) != 0 ? -term : term;
      }
      keep(i, sum);
    }
    return sum;
  }
  __int128 total(int64_t row, int64_t chunk) const {
    return add(row, chunk, 0, [](int64_t, __int128) {});
  }
  __int128 scan(int64_t row, int64_t chunk, __int128 offset) const {
    return add(row, chunk, offset, [&](int64_t i, __int128 sum) {
      const bool negative = sum < 0 || i < range.negative_zeros;
      const unsigned __int128 magnitude = static_cast<unsigned __int128>(sum < 0 ? -sum : sum);
      const uint64_t bits = round_leading({magnitude, range.unit, false}, negative, job.format);
      std::memcpy(job.to(row, i), &bits, job.bytes);
    }) - offset;
  }
};

// The row in the wide accumulator, every sum rounded from a copy of it.
void scan_widely(const Job& job, const Reader& reader, const Range& range, int64_t row) {
  Superacc sum;
  clear(sum);
  for (int64_t i = 0; i < job.n; ++i) {
    const uint64_t pattern = reader.bits(job.from(row, i));
    const bool negative = (pattern & job.format.sign) != 0;
    if (reader.biased(pattern) == reader.special) {
      const bool nan = (pattern & ~job.format.sign) != job.format.infinity;
      merge(sum.specials, {nan, !nan && !negative, !nan && negative});
    } else {
      make_room(sum, 1);
      deposit_magnitude(sum, reader.significand(pattern), reader.exponent(pattern), negative);
    }
    uint64_t bits;
    if (!special(sum.specials, job.format, bits)) {
      Superacc copy = sum;
      bits = round_to(copy, job.format, i < range.negative_zeros);
    }
    std::memcpy(job.to(row, i), &bits, job.bytes);
  }
}

void cumsum_exact(const Job& job) {
  const Reader reader(job);
  if (job.by_chunks()) {
    for (int64_t row = 0; row < job.rows; ++row) {
      const Range range = range_of(job, reader, row);
      if (range.fits)
        scan_row_shared(job, InIntegers{job, reader, range}, row);
      else
        scan_widely(job, reader, range, row);
    }
    return;
  }
  share_out(job.rows, job.rows_at_once(), job.workers(), [&](int, int64_t first, int64_t count) {
    for (int64_t row = first; row < first + count; ++row) {
      const Range range = range_of(job, reader, row);
      if (range.fits)
        scan_row(job, InIntegers{job, reader, range}, row);
      else
        scan_widely(job, reader, range, row);
    }
  });
}

}  // namespace

CumsumVariant cumsum_variant(const std::string& name) {
  if (name == "fixed_order") return CumsumVariant::fixed_order;
  if (name == "exact") return CumsumVariant::exact;
  throw std::invalid_argument("cumsum has no variant " + name);
}

void cumsum(Dtype dtype, CumsumVariant variant, const void* x, int64_t rows, int64_t n, int threads,
            const std::string& isa, void* sums) {
  const Format& format = format_of(dtype);
  const Job job{kernels_of(choose_isa(isa), dtype),
                format,
                element_bytes(dtype),
                static_cast<const char*>(x),
                static_cast<char*>(sums),
                rows,
                n,
                threads};
  if (n == 0) return;
  if (variant == CumsumVariant::exact)
    cumsum_exact(job);
  else if (dtype == Dtype::float64)
    scan_rows(job, InFloats<double>{job});
  else
    scan_rows(job, InFloats<float>{job});
}

}  // namespace ndp
