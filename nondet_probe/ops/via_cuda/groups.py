"""`segment_sum`, `embedding`, `bincount`, `histogram`.

Edges of bins are few: they are made, checked and divided by on the CPU, by `via_c`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops import via_c
from nondet_probe.ops.via_cuda.library import (
    launch_blocks,
    library,
    no_threads,
    not_captured,
    on_device,
    same_device,
    stream_of,
    workspace,
)
from nondet_probe.ops.via_cuda.scatter import first_outside, position_of

__all__ = [
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

_TAKEN = ("atomic", "ordered", "exact")


def segment_sum(
    data: Tensor, sizes: Tensor, are_offsets: bool, variant: str, threads: int | None
) -> Tensor:
    """Sums over neighbouring rows of data as rows of a new tensor; all contiguous.

    sizes: int64, offsets or lengths. UsageError when they do not fit data, which is known only
    after the launches: this waits for them. UsageError also while a graph is captured.
    """
    no_threads(threads)
    if variant not in _TAKEN:
        raise UsageError(
            f"segment_sum variant {variant!r} has no kernel for CUDA; taken are {', '.join(_TAKEN)}"
        )
    same_device("segment_sum", data, sizes)
    not_captured("segment_sum", data)
    offsets = sizes
    if not are_offsets:
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    rows, segments = data.shape[0], offsets.shape[0] - 1
    columns = math.prod(data.shape[1:])
    result = torch.empty((segments, *data.shape[1:]), dtype=data.dtype, device=data.device)
    state = torch.zeros(2, dtype=torch.int64, device=data.device)
    code = CODES[data.dtype]
    with on_device(data):
        size = library().segment_sum_workspace(variant, code, rows, columns, segments)
        memory = workspace(data, size)
        library().segment_sum(
            variant,
            code,
            data.data_ptr(),
            rows,
            columns,
            offsets.data_ptr(),
            segments,
            result.data_ptr(),
            state.data_ptr(),
            memory.data_ptr(),
            launch_blocks(),
            stream_of(data),
        )
    negative, unfit = state.tolist()
    segment = position_of(negative)
    if segment >= 0:
        start, end = offsets[segment : segment + 2].tolist()
        raise UsageError(f"segment {segment} has {end - start} rows")
    if unfit:
        raise UsageError(
            f"the segments are rows {offsets[0].item()} to {offsets[-1].item()}, the data has "
            f"{rows} rows"
        )
    return result


def first_bad_index(index: Tensor, rows: int) -> int:
    """The position of the first of these contiguous int64 that is not in [0, rows); -1 for none."""
    return first_outside("embedding", index, 0, rows, None)


def count(index: Tensor, bins: int, threads: int | None) -> Tensor:
    """How often each of 0, ..., bins - 1 occurs; index: contiguous int64."""
    no_threads(threads)
    counts = torch.empty(bins, dtype=torch.int64, device=index.device)
    with on_device(index):
        library().count(
            index.data_ptr(),
            index.numel(),
            bins,
            counts.data_ptr(),
            launch_blocks(),
            stream_of(index),
        )
    return counts


def extremes(index: Tensor) -> tuple[int, int]:
    """The least and the largest of int64, of which there are some. Waits for the GPU."""
    not_captured("bincount", index)
    least, most = torch.stack(torch.aminmax(index)).tolist()
    return least, most


def widen(x: Tensor) -> Tensor:
    """A tensor of bfloat16, float16 or int64 as float64, integers rounded to nearest even."""
    return x.to(torch.float64)


def divide_rows(table: Tensor, counts: Tensor) -> None:
    """table[i] /= counts[i] in place where counts[i] > 1, each element rounded once."""
    rows = table.shape[0]
    columns = math.prod(table.shape[1:])
    with on_device(table):
        library().divide_rows(
            CODES[table.dtype],
            table.data_ptr(),
            counts.data_ptr(),
            rows,
            columns,
            launch_blocks(),
            stream_of(table),
        )


def range_of(x: Tensor) -> tuple[float, float]:
    """The least and the largest element, 0 and 1 where there is none. Waits for the GPU."""
    if x.numel() == 0:
        return 0.0, 1.0
    not_captured("histogram", x)
    low, high = torch.stack(torch.aminmax(x)).tolist()
    return low + 0.0, high + 0.0  # -0.0 becomes 0.0


def edges_beside(x: Tensor, low: float, high: float, bins: int) -> Tensor:
    """As `via_c.edges_beside`; they are made on the CPU, whose memory no graph may read."""
    not_captured("histogram", x)
    return via_c.edges_beside(x, low, high, bins).to(x.device)


def falling_edge(edges: Tensor) -> int:
    """The first place at which these edges fall or are NaN; -1 for none. Waits for the GPU."""
    not_captured("histogram", edges)
    return via_c.falling_edge(edges.cpu().contiguous())


def find_bins(x: Tensor, edges: Tensor, uniform: bool, threads: int | None) -> Tensor:
    """The bin of every element of x, int64; the number of bins for elements in none of them.

    x and edges: contiguous, of one dtype; uniform: edges are those of `via_c.bin_edges`.
    """
    no_threads(threads)
    same_device("histogram", x, edges)
    index = torch.empty(x.numel(), dtype=torch.int64, device=x.device)
    with on_device(x):
        library().find_bins(
            CODES[x.dtype],
            edges.data_ptr(),
            edges.shape[0] - 1,
            uniform,
            x.data_ptr(),
            x.numel(),
            index.data_ptr(),
            launch_blocks(),
            stream_of(x),
        )
    return index


def count_bins(
    x: Tensor, edges: Tensor, uniform: bool, threads: int | None
) -> tuple[Tensor, Tensor]:
    """How many elements each bin has, as int64 and rounded to x's dtype; as `find_bins`."""
    no_threads(threads)
    same_device("histogram", x, edges)
    counts = torch.empty(edges.shape[0] - 1, dtype=torch.int64, device=x.device)
    with on_device(x):
        library().count_bins(
            CODES[x.dtype],
            edges.data_ptr(),
            counts.numel(),
            uniform,
            x.data_ptr(),
            x.numel(),
            counts.data_ptr(),
            launch_blocks(),
            stream_of(x),
        )
    return counts, counts.to(x.dtype)


def normalise(hist: Tensor, edges: Tensor) -> None:
    """hist becomes a density in place: over its total, over the widths of its bins. The total is
    added from left to right, which is no work for a GPU. Waits for it."""
    not_captured("histogram", hist)
    densities = hist.cpu()
    via_c.normalise(densities, edges.cpu().contiguous())
    hist.copy_(densities)


def bin_sums(index: Tensor, weights: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """The exact sums of the weights of each bin: digits [bins, EXACT_DIGITS] and specials [bins]
    (1: positive infinity, 2: negative infinity, 4: NaN). index: as `find_bins` gives it."""
    digits = torch.empty((bins, via_c.EXACT_DIGITS), dtype=torch.int64, device=index.device)
    specials = torch.empty(bins, dtype=torch.uint8, device=index.device)
    with on_device(index):
        memory = workspace(index, library().bin_sums_workspace(bins))
        library().bin_sums(
            CODES[weights.dtype],
            index.data_ptr(),
            weights.data_ptr(),
            index.numel(),
            bins,
            memory.data_ptr(),
            digits.data_ptr(),
            specials.data_ptr(),
            launch_blocks(),
            stream_of(index),
        )
    return digits, specials
