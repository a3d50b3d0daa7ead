"""Tensors on their way into the kernels of `nondet_probe._C`; the only module in `ops` that
imports it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError

__all__ = [
    "EXACT_DIGITS",
    "EXACT_LOWEST",
    "bin_edges",
    "bin_sums",
    "checked_indices",
    "count",
    "count_bins",
    "cumsum",
    "divide_rows",
    "dot",
    "falling_edge",
    "find_bins",
    "first_bad_index",
    "matmul",
    "norm",
    "normalise",
    "range_of",
    "scatter_rows",
    "segment_sum",
    "sum_all",
    "sum_over",
    "var_mean",
    "widen",
]


def _threads(threads: int | None) -> int:
    """The most to use: None is torch.get_num_threads(). UsageError when it is below 1."""
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    return threads


def sum_all(x: Tensor, variant: str, mean: bool, threads: int | None) -> Tensor:
    """The sum, or mean, of a contiguous CPU tensor of a dtype that the variant takes: 0-d.

    threads: at most so many are used; None is torch.get_num_threads(). UsageError when it is below
    1 and when NONDET_PROBE_ISA names an instruction set that is not available.
    """
    threads = _threads(threads)
    result = torch.empty((), dtype=x.dtype, device="cpu")
    try:
        _C.sum(
            variant,
            mean,
            CODES[x.dtype],
            x.data_ptr(),
            x.numel(),
            threads,
            "",
            result.data_ptr(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def sum_over(
    x: Tensor,
    dims: Sequence[int],
    shape: Sequence[int],
    variant: str,
    mean: bool,
    threads: int | None,
) -> Tensor:
    """The same over the dimensions `dims` of a strided CPU tensor, to a result of this shape."""
    threads = _threads(threads)
    results = torch.empty(shape, dtype=x.dtype, device="cpu")
    try:
        _C.sum_over(
            variant,
            mean,
            CODES[x.dtype],
            x.data_ptr(),
            x.shape,
            x.stride(),
            [dim in dims for dim in range(x.ndim)],
            threads,
            "",
            results.data_ptr(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return results


def matmul(
    a: Tensor, b: Tensor, shape: tuple[int, ...], variant: str, threads: int | None
) -> Tensor:
    """The product, of this shape, of two CPU tensors of one dtype and two dimensions or more.

    threads and UsageError: as for sum_all.
    """
    if threads is None:
        threads = torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    result = torch.empty(shape, dtype=a.dtype, device="cpu")
    batch = shape[:-2]
    a_steps, b_steps = a.stride(), b.stride()
    try:
        _C.matmul(
            variant,
            CODES[a.dtype],
            a.data_ptr(),
            b.data_ptr(),
            result.data_ptr(),
            batch,
            _batch_strides(a, len(batch)) if batch else (),
            _batch_strides(b, len(batch)) if batch else (),
            (shape[-2], shape[-1], a.shape[-1]),
            (a_steps[-2], a_steps[-1]),
            (b_steps[-2], b_steps[-1]),
            threads,
            "",
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def _batch_strides(x: Tensor, dims: int) -> list[int]:
    """Of the last `dims` dimensions before the matrix; 0 where x is repeated along one."""
    own = [
        0 if size == 1 else stride
        for size, stride in zip(x.shape[:-2], x.stride()[:-2], strict=True)
    ]
    return [0] * (dims - len(own)) + own


def scatter_rows(
    out: Tensor,
    index: Tensor,
    source: Tensor,
    variant: str,
    threads: int | None,
    wrap: bool = False,
    strict: bool = False,
) -> None:
    """out[index[i], :] += source[i, :] for every i, in place, by one variant of the scatter core.

    out: contiguous, [destinations] or [destinations, columns], holding the initial values; index:
    contiguous int64, [n]; source: contiguous, n times columns elements of out's dtype.
    threads: at most so many are used; None is torch.get_num_threads(). UsageError when it is below
    1. wrap: negative indices count from the end. strict: "ordered" adds single elements one after
    the other too, not by chunks. IndexError names the first index out of range and its position;
    out is then of no more use.
    """
    if threads is None:
        threads = torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    destinations, n = out.shape[0], index.numel()
    columns = out.numel() // destinations if destinations else 0
    try:
        bad = _C.scatter(
            variant,
            CODES[out.dtype],
            out.data_ptr(),
            index.data_ptr(),
            source.data_ptr(),
            n,
            columns,
            destinations,
            threads,
            "",
            wrap,
            strict,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    if bad >= 0:
        raise IndexError(
            f"index {index[bad].item()} at position {bad} is out of range for {destinations} rows"
        )


def checked_indices(index: Tensor, size: int, op: str, *, wrap: bool = False) -> Tensor:
    """The index, of any shape, as contiguous int64 in [0, size).

    wrap: negative indices count from the end. IndexError, in the name of `op`, names the first one
    out of range and its position.
    """
    index = index.long().contiguous()
    wrapped = torch.empty_like(index) if wrap else index
    low, to = (-size, wrapped.data_ptr()) if wrap else (0, 0)
    bad = _C.check_indices(index.data_ptr(), index.numel(), low, size, to)
    if bad >= 0:
        raise IndexError(
            f"{op}: index {index.view(-1)[bad].item()} at position {bad} is out of range for "
            f"size {size}"
        )
    return wrapped


def dot(a: Tensor, b: Tensor, variant: str, threads: int | None) -> Tensor:
    """The sum of products of two contiguous CPU tensors of one dtype and size, as a 0-d tensor."""
    result = torch.empty((), dtype=a.dtype, device="cpu")
    workers = _workers(threads)
    code, places = CODES[a.dtype], (a.data_ptr(), b.data_ptr())
    try:
        _C.dot(variant, code, *places, a.numel(), workers, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def norm(x: Tensor, variant: str, threads: int | None) -> Tensor:
    """The root of the sum of squares of a contiguous CPU tensor, as a 0-d tensor."""
    result = torch.empty((), dtype=x.dtype, device="cpu")
    workers = _workers(threads)
    try:
        _C.norm(variant, CODES[x.dtype], x.data_ptr(), x.numel(), workers, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def _workers(threads: int | None) -> int:
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    return threads


def var_mean(
    x: Tensor, rows: int, shape: list[int], correction: int, variant: str, threads: int | None
) -> tuple[Tensor, Tensor]:
    """Variances and means of the rows of a contiguous CPU tensor, both of this shape."""
    var = torch.empty(shape, dtype=x.dtype, device="cpu")
    mean = torch.empty(shape, dtype=x.dtype, device="cpu")
    if rows == 0:
        return var, mean
    workers = _workers(threads)
    code, n = CODES[x.dtype], x.numel() // rows
    places = (var.data_ptr(), mean.data_ptr())
    try:
        _C.var_mean(variant, code, x.data_ptr(), rows, n, correction, workers, "", *places)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return var, mean


def cumsum(x: Tensor, n: int, variant: str, threads: int | None) -> Tensor:
    """Prefix sums of the rows, of n elements each, of a contiguous CPU tensor; of its shape."""
    sums = torch.empty(x.shape, dtype=x.dtype, device="cpu")
    if x.numel() == 0:
        return sums
    workers, rows = _workers(threads), x.numel() // n
    try:
        _C.cumsum(variant, CODES[x.dtype], x.data_ptr(), rows, n, workers, "", sums.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return sums


EXACT_DIGITS = 70


EXACT_LOWEST = -1088


def segment_sum(
    data: Tensor, sizes: Tensor, are_offsets: bool, variant: str, threads: int | None
) -> Tensor:
    """Sums over neighbouring rows of data as rows of a new tensor; all contiguous.

    sizes: int64, offsets or lengths. UsageError as for `sum_all`, and when they do not fit data.
    """
    rows, segments = data.shape[0], sizes.shape[0] - are_offsets
    result = torch.empty((segments, *data.shape[1:]), dtype=data.dtype, device="cpu")
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
            _at_most(threads),
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
    _C.count(index.data_ptr(), index.numel(), bins, _at_most(threads), counts.data_ptr())
    return counts


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
        _at_most(threads),
        index.data_ptr(),
    )
    return index


def count_bins(
    x: Tensor, edges: Tensor, uniform: bool, threads: int | None
) -> tuple[Tensor, Tensor]:
    """How many elements each bin has, as int64 and rounded to x's dtype; as `find_bins`."""
    bins = edges.shape[0] - 1
    counts = torch.empty(bins, dtype=torch.int64, device="cpu")
    hist = torch.empty(bins, dtype=x.dtype, device="cpu")
    _C.count_bins(
        CODES[x.dtype],
        edges.data_ptr(),
        bins,
        uniform,
        x.data_ptr(),
        x.numel(),
        _at_most(threads),
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


def _at_most(threads: int | None) -> int:
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    return threads
