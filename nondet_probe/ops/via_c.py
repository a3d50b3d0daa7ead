"""Tensors on their way into the kernels of `nondet_probe._C`; the only module in `ops` that
imports it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError

__all__ = ["scatter_rows", "segment_sum", "sum_all"]


def sum_all(x: Tensor, variant: str, threads: int | None) -> Tensor:
    """The sum of a contiguous CPU tensor of a dtype that the variant takes, as a 0-d tensor.

    threads: at most so many are used; None is torch.get_num_threads(). UsageError when it is below
    1 and when NONDET_PROBE_ISA names an instruction set that is not available.
    """
    if threads is None:
        threads = torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    result = torch.empty((), dtype=x.dtype, device="cpu")
    try:
        _C.sum(variant, CODES[x.dtype], x.data_ptr(), x.numel(), threads, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def scatter_rows(
    out: Tensor, index: Tensor, source: Tensor, variant: str, threads: int | None
) -> None:
    """out[index[i], :] += source[i, :] for every i, in place, by one variant of the scatter core.

    out: contiguous, [destinations] or [destinations, columns], holding the initial values; index:
    contiguous int64, [n]; source: contiguous, n times columns elements of out's dtype.
    threads: at most so many are used; None is torch.get_num_threads(). UsageError when it is below
    1. IndexError names the first index outside of [0, destinations) and its position; out is then
    of no more use.
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
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    if bad >= 0:
        raise IndexError(
            f"index {index[bad].item()} at position {bad} is out of range for {destinations} rows"
        )


def segment_sum(
    data: Tensor, sizes: Tensor, are_offsets: bool, variant: str, threads: int | None
) -> Tensor:
    """Sums over neighbouring rows of data as rows of a new tensor; all contiguous.

    sizes: int64, offsets or lengths. UsageError as for `sum_all`, and when they do not fit data.
    """
    if threads is None:
        threads = torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
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
            threads,
            "",
            result.data_ptr(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result
