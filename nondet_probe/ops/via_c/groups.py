"""`segment_sum`, `embedding`, `bincount`, `histogram`: the way into `_C`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.via_c.room import room
from nondet_probe.ops.via_c.threads import at_most

__all__ = [
    "EXACT_DIGITS",
    "EXACT_LOWEST",
    "bin_edges",
    "bin_sums",
    "count",
    "count_bins",
    "divide_rows",
    "edges_beside",
    "extremes",
    "falling_edge",
    "find_bins",
    "first_bad_index",
    "normalise",
    "range_of",
    "segment_sum",
    "widen",
]

EXACT_DIGITS = 70
"""Digits of base 2**32 of an exact sum (csrc/superacc.hpp), the last of which is signed."""
EXACT_LOWEST = -1088
"""log2 of their unit."""


def segment_sum(
    data: Tensor, sizes: Tensor, are_offsets: bool, variant: str, threads: int | None
) -> Tensor:
    """Sums over neighbouring rows of data as rows of a new tensor; all contiguous.

    sizes: int64, offsets or lengths. UsageError when they do not fit data, as for
    threads below 1 and for a NONDET_PROBE_ISA that is not available.
    """
    rows, segments = data.shape[0], sizes.shape[0] - are_offsets
    result = room(data, (segments, *data.shape[1:]))
    columns = math.prod(data.shape[1:])
    try:
        _C.segment_sum(
            variant,
            CODES[data.dtype],
            data.data_ptr(),
            rows,
            columns,
            sizes.data_ptr(),
            segments,
            are_offsets,
            at_most(threads),
            "",
            result.data_ptr(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def first_bad_index(index: Tensor, rows: int) -> int:
    """The position of the first of these contiguous int64 that is not in [0, rows); -1 for none."""
    return _C.check_indices(index.data_ptr(), index.numel(), 0, rows, 0)


def count(index: Tensor, bins: int, threads: int | None) -> Tensor:
    """How often each of 0, ..., bins - 1 occurs; index: contiguous int64, all in [0, bins)."""
    counts = torch.empty(bins, dtype=torch.int64, device="cpu")
    _C.count(index.data_ptr(), index.numel(), bins, at_most(threads), counts.data_ptr())
    return counts


def extremes(index: Tensor) -> tuple[int, int]:
    """The least and the largest of contiguous int64, of which there are some."""
    return _C.extremes(index.data_ptr(), index.numel())


def widen(x: Tensor) -> Tensor:
    """A contiguous tensor of bfloat16, float16 or int64 as float64, whatever the process's mode."""
    wide = torch.empty(x.shape, dtype=torch.float64, device="cpu")
    _C.widen(CODES[x.dtype], x.data_ptr(), x.numel(), wide.data_ptr())
    return wide


def divide_rows(table: Tensor, counts: Tensor) -> None:
    """table[i] /= counts[i] in place where counts[i] > 1, each element rounded once."""
    rows = table.shape[0]
    columns = math.prod(table.shape[1:])
    _C.divide_rows(CODES[table.dtype], table.data_ptr(), counts.data_ptr(), rows, columns)


def range_of(x: Tensor) -> tuple[float, float]:
    """The least and the largest element of a contiguous tensor, 0 and 1 where there is none."""
    return _C.range_of(CODES[x.dtype], x.data_ptr(), x.numel())


def bin_edges(low: float, high: float, bins: int, dtype: torch.dtype) -> Tensor:
    """bins + 1 edges of bins of equal width. UsageError for a range that is none."""
    edges = torch.empty(bins + 1, dtype=dtype, device="cpu")
    try:
        _C.bin_edges(CODES[dtype], low, high, bins, edges.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return edges


def edges_beside(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """The same, of x's dtype and beside x."""
    return bin_edges(low, high, bins, x.dtype)


def falling_edge(edges: Tensor) -> int:
    """The first place at which these contiguous edges fall or are NaN; -1 for none."""
    return _C.falling_edge(CODES[edges.dtype], edges.data_ptr(), edges.numel())


def find_bins(x: Tensor, edges: Tensor, uniform: bool, threads: int | None) -> Tensor:
    """The bin of every element of x, int64; the number of bins for elements in none of them.

    x and edges: contiguous, of one dtype; uniform: edges are those of `bin_edges`.
    """
    bins = edges.shape[0] - 1
    index = torch.empty(x.numel(), dtype=torch.int64, device="cpu")
    _C.find_bins(
        CODES[x.dtype],
        edges.data_ptr(),
        bins,
        uniform,
        x.data_ptr(),
        x.numel(),
        at_most(threads),
        index.data_ptr(),
    )
    return index


def count_bins(
    x: Tensor, edges: Tensor, uniform: bool, threads: int | None
) -> tuple[Tensor, Tensor]:
    """How many elements each bin has, as int64 and rounded to x's dtype; as `find_bins`."""
    bins = edges.shape[0] - 1
    counts = torch.empty(bins, dtype=torch.int64, device="cpu")
    hist = x.new_empty(bins)
    _C.count_bins(
        CODES[x.dtype],
        edges.data_ptr(),
        bins,
        uniform,
        x.data_ptr(),
        x.numel(),
        at_most(threads),
        counts.data_ptr(),
        hist.data_ptr(),
    )
    return counts, hist


def normalise(hist: Tensor, edges: Tensor) -> None:
    """hist becomes a density in place: over its total, over the widths of its bins."""
    _C.normalise(CODES[hist.dtype], edges.data_ptr(), hist.shape[0], hist.data_ptr())


def bin_sums(index: Tensor, weights: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """The exact sums of the weights of each bin: digits [bins, EXACT_DIGITS] and specials [bins]
    (1: positive infinity, 2: negative infinity, 4: NaN). index: as `find_bins` gives it."""
    digits = torch.empty((bins, EXACT_DIGITS), dtype=torch.int64, device="cpu")
    specials = torch.empty(bins, dtype=torch.uint8, device="cpu")
    _C.bin_sums(
        CODES[weights.dtype],
        index.data_ptr(),
        weights.data_ptr(),
        index.numel(),
        bins,
        digits.data_ptr(),
        specials.data_ptr(),
    )
    return digits, specials
