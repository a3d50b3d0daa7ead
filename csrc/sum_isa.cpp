// The loops of `sum`, compiled once for each ISA level.
#include <bit>
#include <cstdint>
#include <cstring>

#include "inexact.hpp"
#include "sum.hpp"
#pragma GCC diagnostic push
// gcc 12 takes the deliberately undefined registers of its own AVX-512 header for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "simd.hpp"
#pragma GCC diagnostic pop

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined

namespace ndp::NDP_ISA {

#include "sum_lanes.hpp"

namespace {

// ---- fixed_order: lane j adds elements j, j + 64, j + 128, ... in turn; lanes fold in halves.

template <class T>
void add_rows(const T* x, int64_t n, typename Traits<T>::Partial* lane) {
  using Vector = decltype(partials(x));
  constexpr int kWidth = kBytes / sizeof(*lane);
  // Only as many lanes at a time as leave the registers room; each pass reads its own columns.
  constexpr int kVectors = kSumLanes / kWidth < 8 ? kSumLanes / kWidth : 8;
  for (int first = 0; first < kSumLanes; first += kVectors * kWidth) {
    Vector sums[kVectors];
    std::memcpy(sums, lane + first, sizeof sums);
    for_rows(x, n, [&](const T* row) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int k = 0; k < kVectors; ++k) sums[k] += partials(row + first + k * kWidth);
    });
    std::memcpy(lane + first, sums, sizeof sums);
  }
}

// One chunk of every run, n <= kSumChunk elements each, 2 KiB in turn; the sum of run r goes to
// result[r * results_apart].
template <class T>
void add_chunk(const Block<T>& block, typename Traits<T>::Partial* result, int64_t results_apart) {
  using Partial = typename Traits<T>::Partial;
  constexpr int64_t kVisit = 2048 / sizeof(T);
  Partial lane[kRuns][kSumLanes];
  for (auto& run : lane)
    for (Partial& sum : run) sum = -Partial{0};  // -0.0 plus x is x, for every x
  for (int64_t i = 0; i < block.n; i += kVisit)
    for (int run = 0; run < block.runs; ++run)
      add_rows(block.x + run * block.apart + i, block.n - i < kVisit ? block.n - i : kVisit,
               lane[run]);
  for (int run = 0; run < block.runs; ++run) {
    for (int half = kSumLanes / 2; half >= 1; half /= 2)
      for (int j = 0; j < half; ++j) lane[run][j] += lane[run][j + half];
    result[run * results_apart] = lane[run][0];
  }
}

template <class T>
void chunks(const void* data, int64_t n, void* partials) {
  const T* x = static_cast<const T*>(data);
  auto* result = static_cast<typename Traits<T>::Partial*>(partials);
  if (n * int64_t{sizeof(T)} == kPieceBytes) {
    const int64_t run = n / kRuns;
    for (int64_t i = 0; i < run; i += kSumChunk)
      add_chunk<T>({x + i, kSumChunk, run, kRuns}, result + i / kSumChunk, run / kSumChunk);
  } else {
    for (int64_t i = 0; i < n; i += kSumChunk)
      add_chunk<T>({x + i, n - i < kSumChunk ? n - i : kSumChunk, 0, 1}, result + i / kSumChunk, 0);
  }
}

// ---- binned

template <class T>
void note_specials(const T* x, int64_t n, Specials& specials) {
  for (int64_t i = 0; i < n; ++i) {
    const double element = value(x[i]);
    specials.nan |= element != element;
    specials.positive_infinity |= element == __builtin_inf();
    specials.negative_infinity |= element == -__builtin_inf();
  }
}

template <class T>
void binned_block(const T* x, int64_t n, Binned& sum) {
  const auto most = largest(x, n);
  if (most >= Traits<T>::infinity) return note_specials(x, n, sum.specials);
  raise_top(sum, top_bin(exponent_above<T>(most)));

  constexpr int kBins = Traits<T>::bins;
  constexpr int kSets = 2;  // independent sums, to hide the latency of an addition
  // Scaled so that the top bin's unit is 1. What underflows here is below half of any unit.
  const Doubles scale =
      spread(__builtin_bit_cast(double, static_cast<uint64_t>(1023 - kBinBits * sum.top) << 52));
  Doubles bins[kSets][kBins] = {};
  for_rows(x, n, [&](const T* row) __attribute__((always_inline)) {
#pragma GCC unroll 64
    for (int k = 0; k < kSumLanes / kDoubles; ++k) {
      Doubles rest = doubles(row + k * kDoubles) * scale;
      // 1.5 * 2^52 units: adding it rounds to a whole number of units, in either direction of sign.
      double grid = 0x1.8p52;
#pragma GCC unroll 3
      for (int i = 0; i < kBins; ++i) {
        const Doubles slice = (rest + grid) - grid;
        bins[k % kSets][i] += slice;
        rest -= slice;
        grid *= 0x1p-40;
      }
    }
  });
  double unit = 1.0;
  for (int i = 0; i < kBins; ++i) {
    double total = 0.0;
    for (int set = 0; set < kSets; ++set)
      for (int lane = 0; lane < kDoubles; ++lane) total += bins[set][i][lane];
    sum.bin[i] += static_cast<int64_t>(total * unit);
    unit *= 0x1p40;
  }
}

template <class T>
void binned(const void* data, int64_t n, Binned& sum) {
  const T* x = static_cast<const T*>(data);
  for (int64_t i = 0; i < n; i += kBinnedBlock)
    binned_block(x + i, n - i < kBinnedBlock ? n - i : kBinnedBlock, sum);
}

// ---- exact

void deposit_lanes(const Doubles& lanes, Superacc& acc) {
  for (int lane = 0; lane < kDoubles; ++lane) deposit(acc, lanes[lane]);
}

// Level 0. Widened to fp64, most blocks of narrower floats add up without a single rounding, and
// the processor tells whether this one did. False: `total` is of no use.
template <class T>
bool plain_total(const Block<T>& block, Doubles& total) {
  constexpr int kSums = 8;
  Doubles sums[kSums];
  for (Doubles& sum : sums) sum = spread(-0.0);  // so that -0.0 alone gives -0.0
  clear_inexact();
  for_rows(block, [&](const T* row) __attribute__((always_inline)) {
#pragma GCC unroll 64
    for (int k = 0; k < kSumLanes / kDoubles; ++k)
      sums[k % kSums] += doubles(row + k * kDoubles);
  });
  for (int half = kSums / 2; half >= 1; half /= 2)
    for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
  if (inexact_after(sums)) return false;
  total = sums[0];
  return true;
}

template <class T>
bool add_plainly(const Block<T>& block, Superacc& acc) {
  Doubles total;
  if (!plain_total(block, total)) return false;
  // A lane that met an infinity or a NaN is one, and deposits as one.
  make_room(acc, kDoubles);
  deposit_lanes(total, acc);
  return true;
}

// The lanes added up; false where that takes a rounding. `lanes` is read from memory.
bool fold_exactly(const Doubles& lanes, double& total) {
  double sum[kDoubles];
  clear_inexact();
  std::memcpy(sum, &lanes, sizeof sum);
  for (int half = kDoubles / 2; half >= 1; half /= 2)
    for (int lane = 0; lane < half; ++lane) sum[lane] += sum[lane + half];
  total = sum[0];
  return !inexact_after(&total);
}

// log2 of the elements that meet in one lane of a block.
constexpr int kLaneBits = std::bit_width(static_cast<unsigned>(kExactBlock / kDoubles)) - 1;

// Levels 1 and 2: error-free splits. Part i of every element is its nearest multiple of unit i,
// taken and added up in one addition, to a register that starts at 1.5 * 2^52 units and so has its
// last bit at one unit for as long as it stays below 2^53 units. The rest goes to part i + 1.
// All of it is exact if (a) the registers of all parts but the last never left that binade, and
// (b) the last part left no rest. Both are checked, so that any `exponent` is safe; |x| < 2^exponent
// for all elements implies (a). False: `totals` are of no use.
template <class T, int kParts>
bool split_totals(const Block<T>& block, int exponent, Doubles (&totals)[kParts]) {
  // The lowest unit may as well be that of fp64 itself, where nothing can be left.
  constexpr int kSpan = (kParts - 1) * (52 - kLaneBits) + 51 - kLaneBits;
  if (exponent < kSpan - 1074) exponent = kSpan - 1074;
  if (exponent + kLaneBits + 1 > 1022) return false;  // the first register would overflow

  constexpr int kSets = kDoubles == 8 ? 4 : 2;
  Doubles start[kParts], sums[kSets][kParts];
  for (int i = 0; i < kParts; ++i) {
    const int unit = exponent + kLaneBits - 51 - i * (52 - kLaneBits);
    start[i] = spread(1.5 * __builtin_bit_cast(double, static_cast<uint64_t>(unit + 52 + 1023) << 52));
    for (auto& set : sums) set[i] = start[i];
  }
  Words left_binade{}, left_rest{};
  for_rows(block, [&](const T* row) __attribute__((always_inline)) {
#pragma GCC unroll 64
    for (int k = 0; k < kSumLanes / kDoubles; ++k) {
      Doubles rest = doubles(row + k * kDoubles);
#pragma GCC unroll 3
      for (int i = 0; i < kParts; ++i) {
        Doubles& sum = sums[k % kSets][i];
        const Doubles next = sum + rest;
        rest -= next - sum;
        sum = next;
        if (i + 1 < kParts) left_binade |= (Words)next ^ (Words)start[i];
      }
      left_rest |= (Words)rest;
    }
  });
  uint64_t bad = 0;
  for (int lane = 0; lane < kDoubles; ++lane)
    bad |= (left_binade[lane] & 0xfff0000000000000) | (left_rest[lane] & 0x7fffffffffffffff);
  if (bad != 0) return false;
  for (int i = 0; i < kParts; ++i) {
    totals[i] = Doubles{};
    for (auto& set : sums) totals[i] += set[i] - start[i];
  }
  return true;
}

// Tries the exponent that served last, then the block's own.
template <class T, int kParts>
bool split_adapting(const Block<T>& block, int& exponent, Doubles (&totals)[kParts]) {
  if (split_totals<T, kParts>(block, exponent, totals)) return true;
  typename Traits<T>::Bits most = 0;
  for (int run = 0; run < block.runs; ++run) {
    const auto of_run = largest(block.x + run * block.apart, block.n);
    most = of_run > most ? of_run : most;
  }
  if (most >= Traits<T>::infinity) return false;
  const int own = exponent_above<T>(most);
  if (own == exponent) return false;
  exponent = own;
  return split_totals<T, kParts>(block, exponent, totals);
}

template <class T, int kParts>
bool add_split(const Block<T>& block, ExactSum& sum) {
  Doubles totals[kParts];
  if (!split_adapting<T, kParts>(block, sum.exponent, totals)) return false;
  make_room(sum.acc, kParts * kDoubles);
  for (const Doubles& total : totals) deposit_lanes(total, sum.acc);
  return true;
}

// The last resort, for blocks wider than the splits reach and for infinities and NaNs. With many
// elements it pays to collect significands by exponent: one addition each, not three with shifts.
template <class T>
void add_one_by_one(const Block<T>& block, ExactSum& sum) {
  constexpr int64_t kFewElements = 4096;  // about what it costs to clear the bins and read them
  if (block.n * block.runs <= kFewElements && !sum.bins_used) {
    make_room(sum.acc, block.n * block.runs);
    for (int run = 0; run < block.runs; ++run)
      for (int64_t i = 0; i < block.n; ++i) deposit(sum.acc, value(block.x[run * block.apart + i]));
    return;
  }
  if (!sum.bins_used) std::memset(sum.bins, 0, sizeof *sum.bins);
  sum.bins_used = true;
  for (int run = 0; run < block.runs; ++run) {
    for (int64_t i = 0; i < block.n; ++i) {
      const double element = value(block.x[run * block.apart + i]);
      const uint64_t bits = __builtin_bit_cast(uint64_t, element);
      const uint64_t biased = bits >> 52 & 0x7ff;
      if (biased == 0x7ff) {
        deposit(sum.acc, element);
        continue;
      }
      const uint64_t hidden = uint64_t{biased != 0} << 52;
      const int64_t significand = static_cast<int64_t>((bits & 0xfffffffffffff) | hidden);
      const int64_t mask = static_cast<int64_t>(bits) >> 63;
      sum.bins->bin[biased] += (significand ^ mask) - mask;
    }
  }
}

template <class T>
void exact_block(const Block<T>& block, ExactSum& sum) {
  constexpr int kBlocksAtALevel = 16;
  if (sum.level != sum.base_level && ++sum.since_base == kBlocksAtALevel) {
    sum.level = sum.base_level;
    sum.since_base = 0;
  }
  if constexpr (sizeof(T) < sizeof(double)) {
    if (sum.level == 0) {
      if (add_plainly(block, sum.acc)) return;
      sum.level = 1;
    }
  }
  if (sum.level == 1) {
    if (add_split<T, 2>(block, sum)) return;
    sum.level = 2;
  }
  if (sum.level == 2) {
    if (add_split<T, 3>(block, sum)) return;
    sum.level = 3;
  }
  add_one_by_one(block, sum);
}

template <class T>
void exact(const void* data, int64_t n, ExactSum& sum) {
  const T* x = static_cast<const T*>(data);
  if (n * int64_t{sizeof(T)} == kPieceBytes) {
    const int64_t run = n / kRuns;
    for (int64_t i = 0; i < run; i += kExactBlock / kRuns)
      exact_block<T>({x + i, kExactBlock / kRuns, run, kRuns}, sum);
  } else {
    for (int64_t i = 0; i < n; i += kExactBlock)
      exact_block<T>({x + i, n - i < kExactBlock ? n - i : kExactBlock, 0, 1}, sum);
  }
}

// Of a single block nothing but its total is needed, and often two doubles hold that.
template <class T>
bool exact_pair(const void* data, int64_t n, double* high, double* low) {
  const Block<T> block{static_cast<const T*>(data), n, 0, 1};
  *low = -0.0;
  if constexpr (sizeof(T) < sizeof(double)) {
    Doubles total;
    if (plain_total(block, total) && fold_exactly(total, *high)) return true;
  }
  const auto most = largest(block.x, n);
  if (most >= Traits<T>::infinity) return false;
  Doubles totals[2];
  return split_totals<T, 2>(block, exponent_above<T>(most), totals) &&
         fold_exactly(totals[0], *high) && fold_exactly(totals[1], *low);
}

template <class T>
constexpr SumKernels kKernels{chunks<T>, binned<T>, exact<T>, exact_pair<T>};

}  // namespace

SumKernels sum_kernels(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return kKernels<double>;
    case Dtype::float32:
      return kKernels<float>;
    case Dtype::bfloat16:
      return kKernels<Bfloat16>;
    default:
      return kKernels<Float16>;
  }
}

}  // namespace ndp::NDP_ISA
