// Which kernel runs, on how many threads, and how chunks of a row come together; the exact sums.
#include "cumsum.hpp"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "isa.hpp"
#include "levels.hpp"
#include "rounding.hpp"
#include "superacc.hpp"
#include "workers.hpp"

namespace ndp {

NDP_KERNELS(CumsumKernels, cumsum_kernels)

namespace {

// The least that a worker is started for.
constexpr int64_t kElementsPerWorker = int64_t{1} << 15;

struct Job {
  CumsumKernels kernels;
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

void check(Dtype dtype) {
  if (dtype != Dtype::float64 && dtype != Dtype::float32 && dtype != Dtype::bfloat16 &&
      dtype != Dtype::float16)
    throw std::invalid_argument("cumsum takes float64, float32, bfloat16 and float16");
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

// One format, element by element, as bit patterns and integers. Holder: a type that holds its
// numbers.
template <class Pattern, class Holder, const Format& kFormat>
struct Reader {
  using Bits = Pattern;
  using Number = Holder;
  static constexpr const Format& format = kFormat;
  static constexpr int kFractionBits = kFormat.precision - 1;
  // The biased exponent of infinities and NaNs.
  static constexpr int kSpecial = static_cast<int>(kFormat.infinity >> kFractionBits);

  static uint64_t bits(const char* row, int64_t i) {
    Bits pattern;
    std::memcpy(&pattern, row + i * int64_t{sizeof pattern}, sizeof pattern);
    return pattern;
  }
  static void store(uint64_t bits, char* row, int64_t i) {
    const Bits pattern = static_cast<Bits>(bits);
    std::memcpy(row + i * int64_t{sizeof pattern}, &pattern, sizeof pattern);
  }
  static bool negative(uint64_t pattern) { return (pattern & format.sign) != 0; }
  static uint64_t magnitude(uint64_t pattern) { return pattern & ~format.sign; }
  static int biased(uint64_t pattern) {
    return static_cast<int>(magnitude(pattern) >> kFractionBits);
  }
  // The element is +-significand * 2^exponent.
  static uint64_t significand(uint64_t pattern) {
    const uint64_t fraction = pattern & ((uint64_t{1} << kFractionBits) - 1);
    return fraction | uint64_t{biased(pattern) != 0} << kFractionBits;
  }
  static int exponent(uint64_t pattern) {
    return std::max(biased(pattern), 1) - 1 + format.lowest_exponent;
  }
};

// What a row looks like before it is added.
struct Range {
  bool fits;               // any of its sums is an integer of 127 bits, in units of 2^unit
  int unit;
  int64_t negative_zeros;  // how many elements, all of them -0.0, it begins with
};

template <class Reader>
Range range_of(const Job& job, int64_t row) {
  const char* at = job.from(row, 0);
  Range range{true, 0, 0};
  while (range.negative_zeros < job.n &&
         Reader::bits(at, range.negative_zeros) == Reader::format.sign)
    ++range.negative_zeros;
  // Zeros have no last bit to look after: less one, they come last.
  uint64_t least = ~uint64_t{0}, most = 0;
  for (int64_t i = 0; i < job.n; ++i) {
    const uint64_t magnitude = Reader::magnitude(Reader::bits(at, i));
    least = std::min(least, magnitude - 1);
    most = std::max(most, magnitude);
  }
  const int low = most == 0 ? 1 : std::max(Reader::biased(least + 1), 1);
  const int high = std::max(Reader::biased(most), 1);
  range.unit = low - 1 + Reader::format.lowest_exponent;
  const int carries = 64 - __builtin_clzll(static_cast<uint64_t>(job.n));
  range.fits =
      high < Reader::kSpecial && high - low + Reader::format.precision + carries <= 126;
  return range;
}

template <class Reader>
struct InIntegers {
  const Job& job;
  Range range;

  __int128 zero() const { return 0; }
  template <class Keep>
  __int128 add(int64_t row, int64_t chunk, __int128 sum, const Keep& keep) const {
    const char* from = job.from(row, chunk * kScanChunk);
    for (int64_t i = 0; i < job.in_chunk(chunk); ++i) {
      const uint64_t pattern = Reader::bits(from, i);
      // A zero may have an exponent below the unit.
      const int shift = std::max(Reader::exponent(pattern) - range.unit, 0);
      const __int128 term = static_cast<__int128>(Reader::significand(pattern)) << shift;
      sum += Reader::negative(pattern) ? -term : term;
      keep(i, sum);
    }
    return sum;
  }
  __int128 total(int64_t row, int64_t chunk) const {
    return add(row, chunk, 0, [](int64_t, __int128) {});
  }
  // In the default floating-point mode.
  __int128 scan(int64_t row, int64_t chunk, __int128 offset) const {
    const int64_t first = chunk * kScanChunk;
    char* to = job.to(row, first);
    const Quickly quickly(range.unit);
    const __int128 behind = add(row, chunk, offset, [&](int64_t i, __int128 sum) {
      const bool negative_zero = first + i < range.negative_zeros;
      uint64_t bits;
      if (negative_zero || !quickly.round(sum, bits)) {
        const unsigned __int128 magnitude = static_cast<unsigned __int128>(sum < 0 ? -sum : sum);
        const bool negative = sum < 0 || negative_zero;
        bits = round_leading({magnitude, range.unit, false}, negative, Reader::format);
      }
      Reader::store(bits, to, i);
    });
    return behind - offset;
  }

 private:
  // Small sums are rounded by the machine, when it converts an integer. The product with the unit,
  // 2^exponent, is then exact or infinite: a sum that had to be rounded is no subnormal. Sums for
  // elements of 16 bits are not rounded here but once, to their format.
  struct Quickly {
    using Number = typename Reader::Number;
    static constexpr int64_t kExact = int64_t{1} << 53;
    Number unit;

    explicit Quickly(int exponent) : unit(std::ldexp(Number{1}, exponent)) {}
    // Whether the sum is small enough; else `bits` are of no use.
    bool round(__int128 sum, uint64_t& bits) const {
      const int64_t word = static_cast<int64_t>(sum);
      const Number number = static_cast<Number>(word) * unit;
      if constexpr (sizeof(Number) == sizeof(typename Reader::Bits)) {
        bits = __builtin_bit_cast(typename Reader::Bits, number);
        return word == sum;
      } else {
        bits = round_double(number, Reader::format);
        return sum < kExact && sum > -kExact;
      }
    }
  };
};

// The row in the wide accumulator, every sum rounded from a copy of it.
template <class Reader>
void scan_widely(const Job& job, const Range& range, int64_t row) {
  Superacc sum;
  clear(sum);
  for (int64_t i = 0; i < job.n; ++i) {
    const uint64_t pattern = Reader::bits(job.from(row, 0), i);
    const bool negative = Reader::negative(pattern);
    if (Reader::biased(pattern) == Reader::kSpecial) {
      const bool nan = Reader::magnitude(pattern) != Reader::format.infinity;
      merge(sum.specials, {nan, !nan && !negative, !nan && negative});
    } else {
      make_room(sum, 1);
      deposit_magnitude(sum, Reader::significand(pattern), Reader::exponent(pattern), negative);
    }
    uint64_t bits;
    if (!special(sum.specials, Reader::format, bits)) {
      Superacc copy = sum;
      bits = round_to(copy, Reader::format, i < range.negative_zeros);
    }
    Reader::store(bits, job.to(row, 0), i);
  }
}

template <class Reader>
void cumsum_exact(const Job& job) {
  if (job.by_chunks()) {
    for (int64_t row = 0; row < job.rows; ++row) {
      const Range range = range_of<Reader>(job, row);
      if (range.fits)
        scan_row_shared(job, InIntegers<Reader>{job, range}, row);
      else
        scan_widely<Reader>(job, range, row);
    }
    return;
  }
  share_out(job.rows, job.rows_at_once(), job.workers(), [&](int, int64_t first, int64_t count) {
    for (int64_t row = first; row < first + count; ++row) {
      const Range range = range_of<Reader>(job, row);
      if (range.fits)
        scan_row(job, InIntegers<Reader>{job, range}, row);
      else
        scan_widely<Reader>(job, range, row);
    }
  });
}

void cumsum_exact(const Job& job, Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return cumsum_exact<Reader<uint64_t, double, kFormat64>>(job);
    case Dtype::float32:
      return cumsum_exact<Reader<uint32_t, float, kFormat32>>(job);
    case Dtype::bfloat16:
      return cumsum_exact<Reader<uint16_t, double, kFormatBf16>>(job);
    default:
      return cumsum_exact<Reader<uint16_t, double, kFormat16>>(job);
  }
}

}  // namespace

void cumsum(Dtype dtype, CumsumVariant variant, const void* x, int64_t rows, int64_t n, int threads,
            const std::string& isa, void* sums) {
  check(dtype);
  const Job job{cumsum_kernels(choose_isa(isa), dtype),
                element_bytes(dtype),
                static_cast<const char*>(x),
                static_cast<char*>(sums),
                rows,
                n,
                threads};
  if (n == 0) return;
  if (variant == CumsumVariant::exact)
    cumsum_exact(job, dtype);
  else if (dtype == Dtype::float64)
    scan_rows(job, InFloats<double>{job});
  else
    scan_rows(job, InFloats<float>{job});
}

}  // namespace ndp
