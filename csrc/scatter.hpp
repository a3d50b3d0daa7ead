// Adding rows into the rows of a table that an index names, four ways: what index_add, scatter_add,
// index_put(accumulate), the backward of indexing and the histograms have in common. What each
// variant promises: docs/ops/scatter.md.
#pragma once

#include <cstdint>
#include <string>

#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

enum class ScatterVariant { atomic, ordered, fixed_point, exact };

// For single elements: an index along one dimension of a table of more. Element p then goes to
// cell (p / span * size + index[p]) * inner + p % inner, and an index lies in [0, size).
struct Grid {
  int64_t size;
  int64_t inner;
  int64_t span;
};

// out: [destinations, columns], contiguous, holding the initial values; source: [n, columns],
// contiguous. out[index[i], :] += source[i, :] for every i < n.
struct Scatter {
  Dtype dtype;
  void* out;
  const int64_t* index;
  const void* source;
  int64_t n;
  int64_t columns;
  int64_t destinations;
  bool wrap;    // index -1 is the last destination
  bool strict;  // `ordered` adds single elements one after the other as well
  Grid grid;    // size 0: the index is that of the cell
};

// The position of the first index that is not in [0, destinations), with a grid [0, size), with
// `wrap` [-destinations, destinations); -1 where there is none. When there is one, out holds nothing of use.
// Throws std::invalid_argument for a dtype other than float64, float32, bfloat16 and float16. But
// for `atomic`, the same bits for every level and any number of threads.
int64_t scatter(ScatterVariant variant, const Scatter& job, int threads, const std::string& isa);

// The position of the first index that is not in [low, high), -1 where there is none. Unless
// `wrapped` is null, it takes the indices, the negative ones with `high` added.
int64_t check_indices(const int64_t* index, int64_t n, int64_t low, int64_t high,
                      int64_t* wrapped);

// `ordered` is a format (docs/ops/scatter.md): these two never change. Single elements are added
// chunk by chunk unless it is to be strict, rows of several one after the other.
constexpr int64_t kScatterChunk = 65536;
constexpr int64_t kChunkPerDestination = 2;

constexpr int64_t ordered_chunk(int64_t destinations) {
  const int64_t wanted = kChunkPerDestination * destinations;
  const int64_t chunks = (wanted + kScatterChunk - 1) / kScatterChunk;
  return kScatterChunk * (chunks > 1 ? chunks : 1);
}

// Columns that an accumulating kernel is given at most.
constexpr int64_t kRowWidth = 128;
// Elements that the plain exact kernel adds and checks at a time.
constexpr int64_t kExactCells = 256;

// A rectangle of the table: rows [low, high), columns [first, end) of `columns`.
struct Patch {
  int64_t low, high;
  int64_t columns, first, end;
};

// Rows of a source that meet in one row of the table: row order[k] for k < count, in this order,
// `width` <= kRowWidth elements each.
struct RowGroup {
  const void* source;  // the first of these columns in row 0
  const int64_t* order;
  int64_t count;
  int64_t columns;  // from row to row
  int64_t width;
};

// An addend that did not fit, and the cell of the table that it belongs to.
struct Spilled {
  int64_t cell;
  double x;
};

// What `look` finds among indices.
constexpr int kOutOfRange = 1;
constexpr int kNegative = 2;

// What an ISA level brings for one dtype. But for `look`, `add` and `add_exactly`, indices are in
// range. Sums are fp64 for fp64, else fp32.
struct ScatterKernels {
  // What there is among n indices that should lie in [low, last].
  int (*look)(const int64_t* index, int64_t n, int64_t low, int64_t last);

  // The cells that n indices of a grid stand for, from position `first` on.
  void (*locate)(const int64_t* index, int64_t n, int64_t first, const Grid& grid, int64_t* cells);
  // Copies the indices in [low, high), less low, and the elements they go with, in order; their
  // number. There must be room for n + 8.
  int64_t (*keep_between)(const int64_t* index, const void* source, int64_t n, int64_t low,
                          int64_t high, int64_t* kept_index, void* kept);

  // ---- ordered. far: the table does not fit the nearer caches.
  void (*widen)(const void* x, int64_t n, void* sums);
  // Adds until an index is not in [0, cells); the number of elements added.
  int64_t (*add)(void* sums, const int64_t* index, const void* source, int64_t n, int64_t cells,
                 bool far);
  // Adds single elements to their own columns of a patch that has all rows of the table; there are
  // `rows` rows of as many columns. Where an index is not in [0, patch.high), else behind the last.
  int64_t (*add_columns)(void* sums, const int64_t* index, const void* source, int64_t rows,
                         const Patch& patch, bool far);
  // All of the table, and the source's dtype: null for those of 16 bits.
  void (*add_patch)(void* sums, const int64_t* index, const void* source, int64_t n,
                    const Patch& patch);
  void (*add_group)(void* sums, const RowGroup& group);

  // ---- exact: tables of fp64
  // Adds until an index is not in [0, cells) or an addition was rounded, which is undone with all of
  // its block of kExactCells. The number of elements added.
  int64_t (*add_exactly)(double* high, const int64_t* index, const void* source, int64_t n,
                         int64_t cells, bool far);
  // Adds to unevaluated sums high + low; what these do not hold exactly is spilled. The number of
  // elements spilled.
  int64_t (*add_pairs)(double* high, double* low, const int64_t* index, const void* source,
                       int64_t n, Spilled* spilled);
  // The same for a group. Sets bad[c] where column c no longer holds.
  void (*add_group_exactly)(double* high, double* low, uint64_t* bad, const RowGroup& group,
                            bool inexact_is_kept);

  // ---- fixed_point
  // The largest |x| below infinity, and whether there are others.
  double (*largest)(const void* x, int64_t n, bool* specials);
  // fixed[i] = x[i] * scale * scale2, rounded to nearest even; 0 for an infinity or a NaN.
  void (*fix)(const void* x, int64_t n, const double (&scale)[2], int64_t* fixed);
};

}  // namespace ndp
