// `cumsum` on the device. Rows are cut into chunks; their totals come first, then what lies before
// each chunk, then the prefixes. So x is read twice: 3/2 of the memory traffic of a scan in one pass,
// where every chunk would wait for the one before it, a trip through memory for each, because
// floating-point additions cannot be regrouped (docs/ops/cumsum.md).
#include "cumsum_device.hpp"

#include <algorithm>

#include "elements.hpp"
#include "rounding.hpp"

namespace ndp {

namespace {

// Every thread of a chunk adds one block of it, in order.
constexpr int kThreads = kScanChunk / kScanBlock;
constexpr int kBlocksAProcessor = 12;
// Elements of a row that a block looks at in one visit for their range.
constexpr int64_t kVisit = int64_t{1} << 16;
// Totals that are added up at a time.
constexpr int kTotals = 1024;

// ---- how sums are kept: Sum, zero(), of(element) and finished(sum, index in the row). A block of
// kBlock elements is a thread's.

template <class T>
struct InFloats {
  using Sum = typename Element<T>::Partial;
  static constexpr int kBlock = kScanBlock;
  __device__ InFloats(const void*, int64_t, int64_t) {}
  __device__ bool fits() const { return true; }
  __device__ static Sum zero() { return -Sum{0}; }  // -0.0 plus x is x, for every x
  __device__ Sum of(T x) const { return partial_of(x); }
  __device__ T finished(Sum sum, int64_t) const { return narrowed<T>(sum); }
};

// What a row looks like, as the largest of what its elements say; all 0 to begin with.
struct RowState {
  unsigned long long most;            // magnitude
  unsigned long long complement;      // of (magnitude - 1), so that zeros count last
  unsigned long long from_first;      // elements from the first one that is not -0 on
};

// In units of the row's last bit.
template <class T>
struct InIntegers {
  using Sum = __int128;
  static constexpr int kBlock = kScanBlock / 2;  // half as many of what takes twice the room
  static constexpr int kFractionBits = format_of_element<T>().precision - 1;
  static constexpr int kSpecial =
      static_cast<int>(format_of_element<T>().infinity >> kFractionBits);

  bool fits_;
  int unit;
  int64_t negative_zeros;

  __device__ static int biased(uint64_t magnitude) {
    const int exponent = static_cast<int>(magnitude >> kFractionBits);
    return exponent > 1 ? exponent : 1;
  }
  __device__ InIntegers(const void* states, int64_t row, int64_t n) {
    const RowState& state = static_cast<const RowState*>(states)[row];
    const int high = biased(state.most);
    const int low = state.most == 0 ? 1 : biased(~state.complement + 1);
    unit = low - 1 + format_of_element<T>().lowest_exponent;
    const int carries = 64 - leading_zeros(static_cast<uint64_t>(n));
    fits_ = high < kSpecial && high - low + format_of_element<T>().precision + carries <= 126;
    negative_zeros = n - static_cast<int64_t>(state.from_first);
  }
  // Whether any of the row's sums is an integer of 127 bits.
  __device__ bool fits() const { return fits_; }
  __device__ static Sum zero() { return 0; }
  __device__ Sum of(T x) const {
    const uint64_t bits = bits_of(x), sign = format_of_element<T>().sign;
    const uint64_t magnitude = bits & ~sign;
    const uint64_t fraction = magnitude & ((uint64_t{1} << kFractionBits) - 1);
    const uint64_t hidden = uint64_t{magnitude >> kFractionBits != 0} << kFractionBits;
    // A zero may have an exponent below the unit.
    const int shift = biased(magnitude) - 1 + format_of_element<T>().lowest_exponent - unit;
    const Sum term = static_cast<Sum>(fraction | hidden) << (shift > 0 ? shift : 0);
    return (bits & sign) != 0 ? -term : term;
  }
  __device__ T finished(Sum sum, int64_t index) const {
    const bool negative = sum < 0 || index < negative_zeros;
    const auto magnitude = static_cast<unsigned __int128>(sum < 0 ? -sum : sum);
    return element_of<T>(
        round_leading({magnitude, unit, false}, negative, format_of_element<T>()));
  }
};

template <class Scanner>
constexpr int kChunk = kThreads* Scanner::kBlock;

// ---- a chunk in shared memory, a place free behind every block, so that threads which walk down
// their blocks side by side are at different banks.

template <class Scanner>
__device__ inline int place(int i) {
  return i / Scanner::kBlock * (Scanner::kBlock + 1) + i % Scanner::kBlock;
}
template <class Scanner>
constexpr int kPlaces = kThreads*(Scanner::kBlock + 1);

template <class T, class Scanner>
__device__ inline void load_chunk(const Scanner& scanner, const T* from, int count,
                                  typename Scanner::Sum* values) {
  const int first = static_cast<int>(threadIdx.x) * kVector<T>;
  const auto keep = [&](int at, const T& x) { values[place<Scanner>(at)] = scanner.of(x); };
  if (reinterpret_cast<uintptr_t>(from) % 16 == 0 && count == kChunk<Scanner>) {
    constexpr int kReads = kChunk<Scanner> / (kThreads * kVector<T>);
    constexpr int kAtOnce = kReads < 8 ? kReads : 8;
    for (int read = 0; read < kReads; read += kAtOnce) {
      T x[kAtOnce][kVector<T>];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
        read_vector<T, true>(from + first + (read + k) * kThreads * kVector<T>, x[k]);
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k)
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i)
          keep(first + (read + k) * kThreads * kVector<T> + i, x[k][i]);
    }
  } else {
#pragma unroll 8
    for (int at = static_cast<int>(threadIdx.x); at < count; at += kThreads) keep(at, from[at]);
  }
  __syncthreads();
}

// The sum of this thread's block, whose elements become prefixes where `keep`.
template <bool keep, class Scanner>
__device__ inline typename Scanner::Sum add_block(int count, typename Scanner::Sum* values) {
  const int start = static_cast<int>(threadIdx.x) * Scanner::kBlock;
  const int here = count - start < Scanner::kBlock ? count - start : Scanner::kBlock;
  typename Scanner::Sum* block = values + place<Scanner>(start);
  typename Scanner::Sum sum = Scanner::zero();
#pragma unroll 8
  for (int i = 0; i < here; ++i) {
    sum += block[i];
    if (keep) block[i] = sum;
  }
  return sum;
}

// Thread 0: totals of blocks become what lies before each of them; returns what lies behind the last.
// Those beyond the end are zeros, which change nothing.
template <class Scanner>
__device__ inline typename Scanner::Sum chain(typename Scanner::Sum* blocks) {
  typename Scanner::Sum sum = Scanner::zero();
#pragma unroll 16
  for (int block = 0; block < kThreads; ++block) {
    const typename Scanner::Sum total = blocks[block];
    blocks[block] = sum;
    sum += total;
  }
  return sum;
}

// totals[row, chunk]. before: as for Scanner.
template <class T, class Scanner>
__global__ void __launch_bounds__(kThreads)
    cumsum_totals(const T* x, int64_t rows, int64_t n, const void* states,
                  typename Scanner::Sum* totals) {
  using Sum = typename Scanner::Sum;
  NDP_SHARED(Sum, values, kPlaces<Scanner>);
  NDP_SHARED(Sum, blocks, kThreads);
  const int64_t chunks = ceil_div(n, kChunk<Scanner>);
  for (int64_t work = blockIdx.x; work < rows * chunks; work += gridDim.x) {
    const Scanner scanner(states, work / chunks, n);
    if (!scanner.fits()) continue;
    const int64_t start = work % chunks * kChunk<Scanner>;
    const int count =
        static_cast<int>(n - start < kChunk<Scanner> ? n - start : kChunk<Scanner>);
    load_chunk(scanner, x + work / chunks * n + start, count, values);
    blocks[threadIdx.x] = add_block<false, Scanner>(count, values);
    __syncthreads();
    if (threadIdx.x == 0) totals[work] = chain<Scanner>(blocks);
  }
}

// Totals of a row's chunks become what lies before each of them, one after the other.
template <class Scanner>
__global__ void __launch_bounds__(kThreads)
    cumsum_offsets(int64_t rows, int64_t chunks, typename Scanner::Sum* totals) {
  using Sum = typename Scanner::Sum;
  NDP_SHARED(Sum, values, kTotals);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    Sum sum = Scanner::zero();
    for (int64_t start = 0; start < chunks; start += kTotals) {
      Sum* from = totals + row * chunks + start;
      const int here = static_cast<int>(chunks - start < kTotals ? chunks - start : kTotals);
      for (int i = static_cast<int>(threadIdx.x); i < here; i += kThreads) values[i] = from[i];
      __syncthreads();
      if (threadIdx.x == 0) {
#pragma unroll 16
        for (int i = 0; i < here; ++i) {
          const Sum total = values[i];
          values[i] = sum;
          sum += total;
        }
      }
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < here; i += kThreads) from[i] = values[i];
      __syncthreads();
    }
  }
}

// The prefixes. offsets: what lies before each chunk, or null where there is one a row.
template <class T, class Scanner>
__global__ void __launch_bounds__(kThreads)
    cumsum_prefixes(const T* x, int64_t rows, int64_t n, const void* states,
                    const typename Scanner::Sum* offsets, T* sums) {
  using Sum = typename Scanner::Sum;
  NDP_SHARED(Sum, values, kPlaces<Scanner>);
  NDP_SHARED(Sum, blocks, kThreads);
  const int64_t chunks = ceil_div(n, kChunk<Scanner>);
  for (int64_t work = blockIdx.x; work < rows * chunks; work += gridDim.x) {
    const Scanner scanner(states, work / chunks, n);
    if (!scanner.fits()) continue;
    const int64_t start = work % chunks * kChunk<Scanner>;
    const int count =
        static_cast<int>(n - start < kChunk<Scanner> ? n - start : kChunk<Scanner>);
    load_chunk(scanner, x + work / chunks * n + start, count, values);
    blocks[threadIdx.x] = add_block<true, Scanner>(count, values);
    __syncthreads();
    if (threadIdx.x == 0) chain<Scanner>(blocks);
    __syncthreads();
    const Sum before = offsets == nullptr ? Scanner::zero() : offsets[work];
    T* to = sums + work / chunks * n + start;
    const auto prefix = [&](int at) {
      return scanner.finished((before + blocks[at / Scanner::kBlock]) + values[place<Scanner>(at)],
                              start + at);
    };
    if (reinterpret_cast<uintptr_t>(to) % 16 == 0 && count == kChunk<Scanner>) {
      for (int at = static_cast<int>(threadIdx.x) * kVector<T>; at < count;
           at += kThreads * kVector<T>) {
        T out[kVector<T>];
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) out[i] = prefix(at + i);
        write_vector(out, to + at);
      }
    } else {
      for (int at = static_cast<int>(threadIdx.x); at < count; at += kThreads) to[at] = prefix(at);
    }
    __syncthreads();
  }
}

// ---- exact

__device__ inline unsigned long long largest(unsigned long long x) {
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2) {
    const unsigned long long other = __shfl_xor_sync(kAllLanes, x, by);
    x = other > x ? other : x;
  }
  return x;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    cumsum_ranges(const T* x, int64_t rows, int64_t n, RowState* states) {
  const int64_t visits = ceil_div(n, kVisit);
  for (int64_t work = blockIdx.x; work < rows * visits; work += gridDim.x) {
    const T* from = x + work / visits * n;
    const int64_t start = work % visits * kVisit;
    const int64_t end = start + kVisit < n ? start + kVisit : n;
    RowState found{0, 0, 0};
#pragma unroll 8
    for (int64_t i = start + threadIdx.x; i < end; i += kThreads) {
      const uint64_t bits = bits_of(from[i]), sign = format_of_element<T>().sign;
      const unsigned long long magnitude = bits & ~sign;
      found.most = magnitude > found.most ? magnitude : found.most;
      found.complement = ~(magnitude - 1) > found.complement ? ~(magnitude - 1) : found.complement;
      const auto left = static_cast<unsigned long long>(n - i);
      if (bits != sign && left > found.from_first) found.from_first = left;
    }
    found = {largest(found.most), largest(found.complement), largest(found.from_first)};
    if (threadIdx.x % kWarp != 0) continue;
    RowState& state = states[work / visits];
    atomicMax(&state.most, found.most);
    atomicMax(&state.complement, found.complement);
    atomicMax(&state.from_first, found.from_first);
  }
}

// Rows whose sums are no integers of 127 bits: one thread each, in the wide accumulator, every prefix
// rounded from a copy of it.
template <class T>
__global__ void cumsum_widely(const T* x, int64_t rows, int64_t n, const RowState* states, T* sums) {
  for (int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; row < rows;
       row += int64_t{gridDim.x} * blockDim.x) {
    const InIntegers<T> scanner(states, row, n);
    if (scanner.fits()) continue;
    Superacc sum;
    clear(sum);
    for (int64_t i = 0; i < n; ++i) {
      make_room(sum, 1);
      deposit(sum, value_of(x[row * n + i]));
      Superacc copy = sum;
      sums[row * n + i] =
          element_of<T>(round_to(copy, format_of_element<T>(), i < scanner.negative_zeros));
    }
  }
}

// ---- on the host

unsigned grid_of(const DeviceCumsum& job, int64_t works) {
  const int64_t most = job.blocks > 0 ? job.blocks : blocks_at_once(kBlocksAProcessor);
  return static_cast<unsigned>(std::clamp<int64_t>(works, 1, most));
}

template <class Scanner>
int64_t totals_bytes(const DeviceCumsum& job) {
  const int64_t chunks = ceil_div(job.n, kChunk<Scanner>);
  return chunks > 1 ? job.rows * chunks * static_cast<int64_t>(sizeof(typename Scanner::Sum)) : 0;
}

// states: of the rows, where the scanner asks for them.
template <class T, class Scanner>
void scan(const DeviceCumsum& job, const void* states, void* workspace, Stream stream) {
  using Sum = typename Scanner::Sum;
  const T* x = static_cast<const T*>(job.x);
  Sum* offsets = nullptr;
  const int64_t chunks = ceil_div(job.n, kChunk<Scanner>);
  const unsigned grid = grid_of(job, job.rows * chunks);
  if (chunks > 1) {
    offsets = static_cast<Sum*>(workspace);
    NDP_LAUNCH((cumsum_totals<T, Scanner>), grid, kThreads, stream, x, job.rows, job.n, states,
               offsets);
    NDP_LAUNCH((cumsum_offsets<Scanner>), grid_of(job, job.rows), kThreads, stream, job.rows,
               chunks, offsets);
  }
  NDP_LAUNCH((cumsum_prefixes<T, Scanner>), grid, kThreads, stream, x, job.rows, job.n, states,
             offsets, static_cast<T*>(job.sums));
}

// 128-bit totals first, which need the larger alignment.
template <class T>
void exact(const DeviceCumsum& job, void* workspace, Stream stream) {
  const T* x = static_cast<const T*>(job.x);
  auto* states = reinterpret_cast<RowState*>(static_cast<char*>(workspace) +
                                             totals_bytes<InIntegers<T>>(job));
  clear_on(stream, states, static_cast<size_t>(job.rows) * sizeof *states);
  NDP_LAUNCH((cumsum_ranges<T>), grid_of(job, job.rows * ceil_div(job.n, kVisit)), kThreads, stream,
             x, job.rows, job.n, states);
  scan<T, InIntegers<T>>(job, states, workspace, stream);
  NDP_LAUNCH((cumsum_widely<T>), grid_of(job, ceil_div(job.rows, kThreads)), kThreads, stream, x,
             job.rows, job.n, states, static_cast<T*>(job.sums));
}

}  // namespace

int64_t cumsum_workspace(const DeviceCumsum& job) {
  return by_dtype(job.dtype, "cumsum", [&](auto of) -> int64_t {
    using T = decltype(of);
    if (job.variant == CumsumVariant::fixed_order) return totals_bytes<InFloats<T>>(job);
    return totals_bytes<InIntegers<T>>(job) + job.rows * static_cast<int64_t>(sizeof(RowState));
  });
}

void cumsum(const DeviceCumsum& job, void* workspace, Stream stream) {
  by_dtype(job.dtype, "cumsum", [&](auto of) {
    using T = decltype(of);
    if (job.rows * job.n == 0) return;
    if (job.variant == CumsumVariant::fixed_order)
      scan<T, InFloats<T>>(job, nullptr, workspace, stream);
    else
      exact<T>(job, workspace, stream);
  });
}

}  // namespace ndp
