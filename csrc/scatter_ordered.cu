// `ordered` on the device: the addends of every destination one after the other, as docs/ops/scatter.md
// has it. A stable sort by destination brings them together; a thread then walks the addends of one
// cell, its neighbours those of the cells beside it. Single elements come in chunks: the addends of a
// cell that lie in one chunk are a walk of their own, which is where there is enough to do for a GPU
// that has few cells. Also the cells that `exact` could not hold in its integers.
#include "scatter_core.hpp"

namespace ndp {

namespace {

__global__ void __launch_bounds__(kBlockThreads)
    scatter_find_keys(Scatter job, ScatterState* state, int32_t* keys) {
#pragma unroll 4
  for (int64_t i = own_thread(); i < job.n; i += all_threads())
    keys[i] = static_cast<int32_t>(destination_of(job, i, state));
}

// How far a walk goes: to the end of the chunk, of `length` rows, that its first addend is in.
struct Chunks {
  int64_t length;
  bool several;

  explicit Chunks(const Scatter& job)
      : length(job.columns == 1 && !job.strict ? ordered_chunk(job.destinations) : INT64_MAX),
        several(job.n > length) {}
  __device__ int64_t of(int64_t row) const { return several ? row / length : 0; }
};

// Of a chunk that is not the first one, and where a chunk's addends end in sorted order.
template <class Partial>
struct Walked {
  Partial sum;
  int64_t end;
};

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_walk(Scatter job, Chunks chunks, Sorted sorted,
                 Walked<typename Element<T>::Partial>* walked) {
  using Partial = typename Element<T>::Partial;
  constexpr int kBatch = 8;  // addends on their way at a time
  const T* source = static_cast<const T*>(job.source);
  T* out = static_cast<T*>(job.out);
  for (int64_t element = own_thread(); element < job.n * job.columns; element += all_threads()) {
    const int64_t first = job.columns == 1 ? element : element / job.columns;
    const int64_t column = element - first * job.columns;
    const int32_t key = sorted.keys[first];
    if (key < 0) continue;
    const int64_t chunk = chunks.of(sorted.rows[first]);
    if (first > 0 && sorted.keys[first - 1] == key && chunks.of(sorted.rows[first - 1]) == chunk)
      continue;
    T* cell = out + key * job.columns + column;
    const int64_t limit = chunks.several && job.n - chunk * chunks.length > chunks.length
                              ? (chunk + 1) * chunks.length
                              : job.n;
    Partial sum = chunk == 0 ? partial_of(*cell) : -Partial{0};  // -0.0 plus x is x, for every x
    int64_t at = first;
    for (int count = kBatch; count == kBatch;) {
      int64_t row[kBatch];
      count = 0;
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        row[j] = at + j < job.n && sorted.keys[at + j] == key ? sorted.rows[at + j] : limit;
        count += row[j] < limit;
      }
      T x[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j)
        if (row[j] < limit) x[j] = source[row[j] * job.columns + column];
#pragma unroll
      for (int j = 0; j < kBatch; ++j)
        if (row[j] < limit) sum += partial_of(x[j]);
      at += count;
    }
    if (chunks.several)
      walked[first] = {sum, at};
    else
      *cell = rounded_to<T>(sum);
  }
}

// The chunks of every cell, in their order. A chunk without addends would add -0.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_join(Scatter job, Chunks chunks, Sorted sorted,
                 const Walked<typename Element<T>::Partial>* walked) {
  using Partial = typename Element<T>::Partial;
  T* out = static_cast<T*>(job.out);
  for (int64_t first = own_thread(); first < job.n; first += all_threads()) {
    const int32_t key = sorted.keys[first];
    if (key < 0 || (first > 0 && sorted.keys[first - 1] == key)) continue;
    Partial sum = walked[first].sum;  // holds the initial value if it is of the first chunk
    if (chunks.of(sorted.rows[first]) != 0) sum = partial_of(out[key]) + sum;
    for (int64_t at = walked[first].end; at < job.n && sorted.keys[at] == key; at = walked[at].end)
      sum += walked[at].sum;
    out[key] = rounded_to<T>(sum);
  }
}

// ---- what `exact` left

// A warp looks at as many sorted rows, one column each, as it has lanes, and adds up the cells that
// are to be done one after the other.
template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    scatter_add_spilled(Scatter job, Sorted sorted, const unsigned* marks) {
  constexpr int kTile = kWarp * kTileLane;
  NDP_SHARED(ExactTotal, totals, kBlockWarps);
  const T* source = static_cast<const T*>(job.source);
  T* out = static_cast<T*>(job.out);
  ExactTotal& total = totals[threadIdx.x / kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t elements = job.n * job.columns;
  for (int64_t start = own_thread() - lane; start < elements; start += all_threads()) {
    bool mine = false;
    if (start + lane < elements) {
      const int64_t first = (start + lane) / job.columns;
      const int32_t key = sorted.keys[first];
      mine = key >= 0 && (first == 0 || sorted.keys[first - 1] != key) &&
             (marks[key * job.columns + (start + lane) % job.columns] & kSpilled) != 0;
    }
    for (unsigned left = __ballot_sync(kAllLanes, mine); left != 0; left &= left - 1) {
      const int64_t element = start + __ffs(static_cast<int>(left)) - 1;
      const int64_t first = element / job.columns, column = element % job.columns;
      const int32_t key = sorted.keys[first];
      T* cell = out + key * job.columns + column;
      for (int i = lane; i < kDigits; i += kWarp) total.digit[i] = 0;
      if (lane == 0) total.flags = 0;
      __syncwarp();
      if (lane == 0) deposit_shared(total, value_of(*cell));
      for (int64_t at = first; at < job.n && sorted.keys[at] == key; at += kTile) {
        double tile[kTileLane];
#pragma unroll
        for (int i = 0; i < kTileLane; ++i) {
          const int64_t place = at + i * kWarp + lane;
          tile[i] = place < job.n && sorted.keys[place] == key
                        ? value_of(source[sorted.rows[place] * job.columns + column])
                        : 0;
        }
        add_tile(tile, total);
      }
      __syncwarp();
      // Some addend is not 0, so that a sum of 0 is +0: as if there were no elements.
      if (lane == 0) *cell = element_of<T>(round_total(total, 0, false, format_of_element<T>()));
      __syncwarp();
    }
  }
}

}  // namespace

void scatter_keys(const DeviceScatter& given, int32_t* keys, Stream stream) {
  NDP_LAUNCH((scatter_find_keys), grid_for(given.job.n, given.blocks), kBlockThreads, stream,
             given.job, given.state, keys);
}

int64_t scatter_ordered_workspace(const DeviceScatter& given) {
  if (!Chunks(given.job).several) return 0;
  return with_element(given.job.dtype, "scatter", [&](auto of) {
    using Partial = typename Element<decltype(of)>::Partial;
    return given.job.n * static_cast<int64_t>(sizeof(Walked<Partial>));
  });
}

void scatter_ordered(const DeviceScatter& given, const Sorted& sorted, void* workspace,
                     Stream stream) {
  with_element(given.job.dtype, "scatter", [&](auto of) {
    using T = decltype(of);
    const Scatter& job = given.job;
    const Chunks chunks(job);
    auto* walked = static_cast<Walked<typename Element<T>::Partial>*>(workspace);
    NDP_LAUNCH((scatter_walk<T>), grid_for(job.n * job.columns, given.blocks), kBlockThreads,
               stream, job, chunks, sorted, walked);
    if (chunks.several)
      NDP_LAUNCH((scatter_join<T>), grid_for(job.n, given.blocks), kBlockThreads, stream, job,
                 chunks, sorted, walked);
    make_nans_equal<T>(given, stream);
  });
}

void scatter_spilled(const DeviceScatter& given, const Sorted& sorted, const void* workspace,
                     Stream stream) {
  with_element(given.job.dtype, "scatter", [&](auto of) {
    using T = decltype(of);
    const Scatter& job = given.job;
    const FixedTables tables(job, true, const_cast<void*>(workspace));
    NDP_LAUNCH((scatter_add_spilled<T>), grid_for(job.n * job.columns, given.blocks),
               kBlockThreads, stream, job, sorted, tables.marks);
  });
}

}  // namespace ndp
