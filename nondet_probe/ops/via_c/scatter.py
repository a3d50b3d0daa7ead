"""The scatter core and its indices: the way into `_C`."""

from __future__ import annotations

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.via_c.threads import at_most

__all__ = [
    "checked_indices",
    "scatter_rows",
]


def scatter_rows(
    out: Tensor,
    destinations: int,
    index: Tensor,
    source: Tensor,
    variant: str,
    threads: int | None,
    wrap: bool = False,
    strict: bool = False,
    grid: tuple[int, int, int] = (0, 1, 1),
) -> None:
    """out[index[i], :] += source[i, :] for every i, in place, by one variant of the scatter core.

    out: contiguous, of any shape, read as [destinations, columns], holding the initial values;
    index: contiguous int64, n elements; source: contiguous, n times columns elements of out's
    dtype.
    threads: at most so many are used; None is torch.get_num_threads(). UsageError when it is below
    1. wrap: negative indices count from the end. strict: "ordered" adds single elements one after
    the other too, not by chunks. grid: (size, inner, span) of an index along one dimension, for an
    out of single elements (csrc/scatter.hpp). IndexError names the first index out of range and its
    position; out is then of no more use.
    """
    columns = out.numel() // destinations if destinations else 0
    try:
        bad = _C.scatter(
            variant,
            CODES[out.dtype],
            out.data_ptr(),
            index.data_ptr(),
            source.data_ptr(),
            index.numel(),
            columns,
            destinations,
            at_most(threads),
            "",
            wrap,
            strict,
            *grid,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    if bad >= 0:
        raise IndexError(
            f"index {index.view(-1)[bad].item()} at position {bad} is out of range for "
            f"{grid[0] or destinations} rows"
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
