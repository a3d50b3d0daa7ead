// Rows added into a table on the device: `atomic`, `fixed_point` and `exact`. `ordered` is in
// scatter_ordered.cu.
//
// `fixed_point` and `exact` are the same kernels. Every element becomes integers at fixed scales,
// which integer atomics add in any order: one level, its unit set by the largest element and their
// number (docs/ops/scatter.md), is `fixed_point`. `exact` has finer levels below it for what is left
// of an element; most have nothing left after the first. Where something is left after the last
// level, the cell is marked, and added again by scatter_spilled.
#include <cmath>

#include "rounding.hpp"
#include "scatter_core.hpp"

namespace ndp {

namespace {

// ---- elements and the cells that they go to

// Rows that a team of threads has on their way at a time, and columns that are the work of one team.
constexpr int kAhead = 4;
constexpr int64_t kStrip = 1024;

// A row, or a strip of a long one, is the work of 2^log_width neighbouring threads, so that they
// read neighbouring columns.
struct Teams {
  int log_width = 0;
  int64_t strips;

  explicit Teams(const Scatter& job)
      : strips(std::max<int64_t>(divided_up(job.columns, kStrip), 1)) {
    while (log_width < 5 && int64_t{1} << log_width < job.columns) ++log_width;
  }
  int64_t threads(const Scatter& job) const {
    return divided_up(job.n * strips, kAhead) << log_width;
  }
};

// body(cell, x) for every element with a good index, and once or more touch(destination).
template <class T, class Touch, class Body>
__device__ inline void for_elements(const Scatter& job, const Teams& teams, ScatterState* state,
                                    const Touch& touch, const Body& body) {
  const T* source = static_cast<const T*>(job.source);
  const int width = 1 << teams.log_width;
  const int member = static_cast<int>(threadIdx.x) & (width - 1);
  const int64_t apart = all_threads() >> teams.log_width;
  const int64_t works = job.n * teams.strips;
  const int most = static_cast<int>(job.columns < kStrip ? job.columns : kStrip);
  for (int64_t first = own_thread() >> teams.log_width; first < works; first += kAhead * apart) {
    int64_t to[kAhead], from[kAhead];
    int count[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int64_t work = first + j * apart;
      count[j] = 0;
      if (work >= works) continue;
      const int64_t i = teams.strips == 1 ? work : work / teams.strips;
      const int64_t column = (work - i * teams.strips) * kStrip;
      const int64_t destination = destination_of(job, i, state);
      if (destination < 0) continue;
      if (member == 0) touch(destination);
      to[j] = destination * job.columns + column;
      from[j] = i * job.columns + column;
      count[j] = static_cast<int>(job.columns - column < kStrip ? job.columns - column : kStrip);
    }
    for (int c = member; c < most; c += width) {
      T x[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        if (c < count[j]) x[j] = source[from[j] + c];
#pragma unroll
      for (int j = 0; j < kAhead; ++j)
        if (c < count[j]) body(to[j] + c, x[j]);
    }
  }
}

// ---- atomic

template <class T>
__device__ inline void add_atomically(T* cell, T x) {
  if constexpr (sizeof(T) > 2) {
    atomicAdd(cell, x);
  } else {
    auto* shared = reinterpret_cast<unsigned short*>(cell);
    unsigned short seen = *shared, before;
    do {
      before = seen;
      const double sum = partial_of(T{before}) + partial_of(x);
      seen = atomicCAS(shared, before, static_cast<unsigned short>(bits_of(rounded_to<T>(sum))));
    } while (seen != before);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_atomic(Scatter job, Teams teams, ScatterState* state) {
  T* out = static_cast<T*>(job.out);
  for_elements<T>(job, teams, state, [](int64_t) {},
                  [&](int64_t cell, T x) { add_atomically(out + cell, x); });
}

// ---- fixed_point and exact

// The largest magnitude of x[0 ... n - 1], and whether any is -0, into the overview.
template <class T>
__device__ inline void look_at(const T* x, int64_t n, bool aligned, unsigned long long& largest,
                               bool& negative_zero) {
  const Format format = format_of_element<T>();
  const auto look = [&](T element) {
    const uint64_t bits = bits_of(element), magnitude = bits & ~format.sign;
    negative_zero |= bits == format.sign;
    if (magnitude < format.infinity && magnitude > largest) largest = magnitude;
  };
  const int64_t whole = n / kVector<T>;
  for (int64_t i = own_thread(); i < whole; i += all_threads()) {
    T read[kVector<T>];
    if (aligned)
      read_vector<T, true>(x + i * kVector<T>, read);
    else
      read_vector<T, false>(x + i * kVector<T>, read);
#pragma unroll
    for (int j = 0; j < kVector<T>; ++j) look(read[j]);
  }
  for (int64_t i = whole * kVector<T> + own_thread(); i < n; i += all_threads()) look(x[i]);
}

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_look(Scatter job, bool out_aligned, bool source_aligned, Overview* overview) {
  NDP_SHARED(unsigned long long, warps, kBlockWarps);
  unsigned long long largest = 0;
  bool negative_zero = false, unused = false;
  look_at(static_cast<const T*>(job.source), job.n * job.columns, source_aligned, largest, unused);
  look_at(static_cast<const T*>(job.out), job.destinations * job.columns, out_aligned, largest,
          negative_zero);
  if (negative_zero) atomicOr(&overview->flags, kNegativeZero);
#pragma unroll
  for (int by = kWarp / 2; by > 0; by /= 2) {
    const unsigned long long other = __shfl_xor_sync(kAllLanes, largest, by);
    largest = other > largest ? other : largest;
  }
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = largest;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < kBlockWarps; ++warp)
    largest = warps[warp] > largest ? warps[warp] : largest;
  atomicMax(&overview->largest, largest);
}

__device__ inline double power_of_two(int exponent) {  // of a normal number
  return __longlong_as_double(static_cast<long long>(exponent + 1023) << 52);
}

// Level k counts multiples of 2^-shift[k].
template <int levels>
struct Scale {
  int shift[levels];
  double up[2];  // their product is 2^shift[0], which alone may lie outside of fp64
  double finer[levels];  // 2^(shift[k] - shift[k - 1])
};

template <class T, int levels>
__device__ inline Scale<levels> scale_of(const Overview& overview, int64_t n) {
  constexpr int kFinest = 1074;  // every number is a multiple of 2^-1074
  const int count_bits = 64 - leading_zeros(static_cast<uint64_t>(n) + 1);
  const double largest = value_of(element_of<T>(overview.largest));
  int exponent = 0;  // largest < 2^exponent
  if (largest != 0) {
    const auto bits = static_cast<uint64_t>(__double_as_longlong(largest));
    exponent = bits >> 52 != 0 ? static_cast<int>(bits >> 52) - 1022
                               : 64 - leading_zeros(bits) - 1074;
  }
  Scale<levels> scale;
  int shift = 62 - count_bits - exponent;
  if (shift > kFinest) shift = kFinest;
  scale.shift[0] = shift;
  scale.up[0] = power_of_two(shift / 2);
  scale.up[1] = power_of_two(shift - shift / 2);
  scale.finer[0] = 1;
#pragma unroll
  for (int level = 1; level < levels; ++level) {
    // What is left of an addend is at most half a unit of the level above.
    int next = shift + 62 - count_bits;
    if (next > kFinest) next = kFinest;
    scale.shift[level] = next;
    scale.finer[level] = power_of_two(next - shift);
    shift = next;
  }
  return scale;
}

// A finite x, in units of the levels, each to nearest even. False where something is left.
template <int levels>
__device__ inline bool cut(double x, const Scale<levels>& scale, int64_t (&parts)[levels]) {
  double rest = x * scale.up[0] * scale.up[1];
  // The product of a number far below all levels may have been rounded.
  const bool tiny = x != 0 && rest < 0x1p-300 && rest > -0x1p-300;
#pragma unroll
  for (int level = 0; level < levels; ++level) {
    rest *= scale.finer[level];
    parts[level] = __double2ll_rn(rest);
    rest -= static_cast<double>(parts[level]);
  }
  return rest == 0 && !tiny;
}

// The sum of the levels' totals, rounded once. They are below 2^62 each.
template <int levels>
__device__ inline uint64_t round_levels(const int64_t (&totals)[levels], const Scale<levels>& scale,
                                        const Format& format) {
  __int128 sum = totals[0];
  int exponent = -scale.shift[0];
  bool sticky = false;
#pragma unroll
  for (int level = 1; level < levels; ++level) {
    // As far to the left as there is room, in int128, for the sum of both.
    const int apart = scale.shift[level] + exponent;
    const int room = leading_zeros(static_cast<unsigned __int128>(sum < 0 ? -sum : sum)) - 2;
    const int left = apart < room ? apart : room;
    const int right = apart - left;
    sum = static_cast<__int128>(static_cast<unsigned __int128>(sum) << left);
    sum += totals[level] >> right;
    sticky |= (totals[level] & ((int64_t{1} << right) - 1)) != 0;
    exponent -= left;
  }
  // sum + something in [0, 1)
  if (sum >= 0)
    return round_leading({static_cast<unsigned __int128>(sum), exponent, sticky}, false, format);
  return round_leading({static_cast<unsigned __int128>(-sum) - (sticky ? 1 : 0), exponent, sticky},
                       true, format);
}

template <class T, int levels, bool exact>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_fixed(Scatter job, Teams teams, ScatterState* state, FixedTables tables) {
  const Format format = format_of_element<T>();
  const Scale<levels> scale = scale_of<T, levels>(*tables.overview, job.n);
  const bool zeros_matter = (tables.overview->flags & kNegativeZero) != 0;
  int64_t* totals = tables.totals + blockIdx.x % tables.copies * levels * tables.cells;
  unsigned seen = 0;
  // Rows that nothing is added to keep what they have; single elements do not, by the format.
  const auto touch = [&](int64_t destination) {
    unsigned* mark = &tables.marks[destination * job.columns];
    if (!exact && job.columns > 1 && (*mark & kTouched) == 0) atomicOr(mark, kTouched);
  };
  for_elements<T>(job, teams, state, touch, [&](int64_t cell, T x) {
    const double value = value_of(x);
    unsigned mark = special_of(value);
    int64_t parts[levels];
    if (mark == 0) {
      if (!cut(value, scale, parts) && exact) mark = kSpilled;
#pragma unroll
      for (int level = 0; level < levels; ++level)
        if (parts[level] != 0) atomic_add(&totals[level * tables.cells + cell], parts[level]);
    }
    if (zeros_matter && bits_of(x) != format.sign) mark |= kNotNegativeZero;
    if (mark != 0) atomicOr(&tables.marks[cell], mark);
    seen |= mark;
  });
  if (seen != 0) atomicOr(&tables.overview->flags, kMarked);
}

template <class T, int levels, bool exact>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_finish(Scatter job, ScatterState* state, FixedTables tables) {
  const Format format = format_of_element<T>();
  const Scale<levels> scale = scale_of<T, levels>(*tables.overview, job.n);
  const bool marked = (tables.overview->flags & kMarked) != 0;
  T* out = static_cast<T*>(job.out);
  bool spilled = false;
  for (int64_t cell = own_thread(); cell < tables.cells; cell += all_threads()) {
    const T initial = out[cell];
    if (!exact && job.columns > 1 &&
        (tables.marks[cell - cell % job.columns] & kTouched) == 0) {
      if (bits_of(initial) != bits_of(rounded_to<T>(value_of(initial))))
        out[cell] = element_of<T>(format.quiet_nan);
      continue;
    }
    const double value = value_of(initial);
    const unsigned special = special_of(value);
    const unsigned before = marked ? tables.marks[cell] : 0;
    unsigned mark = before | special;
    int64_t totals[levels] = {};
    if (special == 0 && !cut(value, scale, totals) && exact) mark |= kSpilled;
    for (int64_t copy = 0; copy < tables.copies; ++copy)
#pragma unroll
      for (int level = 0; level < levels; ++level)
        totals[level] += tables.totals[(copy * levels + level) * tables.cells + cell];
    if ((mark & kSpecials) != 0) {
      const double result = (mark & kSpecials) == kPositiveInfinity   ? __builtin_huge_val()
                            : (mark & kSpecials) == kNegativeInfinity ? -__builtin_huge_val()
                                                                      : __longlong_as_double(-1);
      out[cell] = rounded_to<T>(result);
      mark &= ~kSpilled;
    } else if ((mark & kSpilled) == 0 &&
               (bits_of(initial) != format.sign || (mark & kNotNegativeZero) != 0)) {
      out[cell] = element_of<T>(round_levels(totals, scale, format));
    }
    if (exact) {
      // A cell that nothing was added to keeps its initial value; scatter_spilled does not see it.
      if (mark != before) tables.marks[cell] = mark;
      spilled |= (mark & kSpilled) != 0;
    }
  }
  if (spilled) atomicOr(reinterpret_cast<unsigned long long*>(&state->spilled), 1ull);
}

// ---- on the host

template <class T, bool exact>
void add_fixed(const DeviceScatter& given, void* workspace, Stream stream) {
  constexpr int kLevels = !exact ? 1 : sizeof(T) == 8 ? 3 : 2;
  const Scatter& job = given.job;
  const FixedTables tables(job, exact, workspace);
  const Teams teams(job);
  const auto aligned = [](const void* x) { return reinterpret_cast<uintptr_t>(x) % 16 == 0; };
  clear_on(stream, workspace, static_cast<size_t>(tables.bytes()));
  NDP_LAUNCH((scatter_look<T>),
             grid_for(divided_up(job.n * job.columns + tables.cells, kVector<T>), given.blocks),
             kBlockThreads, stream, job, aligned(job.out), aligned(job.source), tables.overview);
  NDP_LAUNCH((scatter_fixed<T, kLevels, exact>), grid_for(teams.threads(job), given.blocks),
             kBlockThreads, stream, job, teams, given.state, tables);
  NDP_LAUNCH((scatter_finish<T, kLevels, exact>), grid_for(tables.cells, given.blocks),
             kBlockThreads, stream, job, given.state, tables);
}

}  // namespace

int64_t scatter_workspace(ScatterVariant variant, const DeviceScatter& given) {
  with_element(given.job.dtype, "scatter", [](auto) {});
  switch (variant) {
    case ScatterVariant::atomic:
      return 0;
    case ScatterVariant::fixed_point:
    case ScatterVariant::exact:
      return FixedTables(given.job, variant == ScatterVariant::exact, nullptr).bytes();
    default:
      throw std::invalid_argument("ordered has launches of its own");
  }
}

void scatter(ScatterVariant variant, const DeviceScatter& given, void* workspace, Stream stream) {
  with_element(given.job.dtype, "scatter", [&](auto of) {
    using T = decltype(of);
    switch (variant) {
      case ScatterVariant::atomic: {
        const Teams teams(given.job);
        NDP_LAUNCH((scatter_atomic<T>), grid_for(teams.threads(given.job), given.blocks),
                   kBlockThreads, stream, given.job, teams, given.state);
        make_nans_equal<T>(given, stream);
        return;
      }
      case ScatterVariant::fixed_point:
        return add_fixed<T, false>(given, workspace, stream);
      case ScatterVariant::exact:
        return add_fixed<T, true>(given, workspace, stream);
      default:
        throw std::invalid_argument("ordered has launches of its own");
    }
  });
}

}  // namespace ndp
