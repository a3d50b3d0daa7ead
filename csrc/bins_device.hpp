// What bincount, histogram and the gradient of embedding need on a GPU beside scatter_device.hpp:
// counts, bins, exact bins, quotients. The results are those of bincount.hpp, histogram.hpp and
// embedding.hpp. Everything runs on the stream and waits for nothing; blocks: of a launch, 0: as many
// as the device runs at once.
#pragma once

#include <cstdint>

#include "device.hpp"
#include "dtypes.hpp"
#include "histogram.hpp"

namespace ndp {

// counts[b] becomes the number of i < n with index[i] == b; an index outside of [0, bins) counts
// nowhere.
void count_on_device(const int64_t* index, int64_t n, int64_t bins, int64_t* counts, int blocks,
                     Stream stream);

// bad, 0 before, becomes INT64_MAX less the position of the first index outside of [low, high).
// Unless `wrapped` is null, it takes the indices, the negative ones with `high` added.
void check_on_device(const int64_t* index, int64_t n, int64_t low, int64_t high, int64_t* wrapped,
                     uint64_t* bad, int blocks, Stream stream);

void divide_rows_on_device(Dtype dtype, void* table, const int64_t* counts, int64_t rows,
                           int64_t columns, int blocks, Stream stream);

// The four of histogram.hpp that go over all elements.
void find_bins_on_device(const Bins& bins, const void* x, int64_t n, int64_t* index, int blocks,
                         Stream stream);
void count_bins_on_device(const Bins& bins, const void* x, int64_t n, int64_t* counts, int blocks,
                          Stream stream);
int64_t bin_sums_workspace(int64_t bins);
void bin_sums_on_device(Dtype dtype, const int64_t* index, const void* weights, int64_t n,
                        int64_t bins, void* workspace, int64_t* digits, uint8_t* specials,
                        int blocks, Stream stream);

}  // namespace ndp
