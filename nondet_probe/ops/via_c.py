"""Tensors on their way into the kernels of `nondet_probe._C`; the only module in `ops` that
imports it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError

__all__ = ["cumsum", "dot", "norm", "sum_all", "sum_over", "var_mean"]


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


def dot(a: Tensor, b: Tensor, variant: str, threads: int | None) -> Tensor:
    """The sum of products of two contiguous CPU tensors of one dtype and size, as a 0-d tensor."""
    result = torch.empty((), dtype=a.dtype, device="cpu")
    workers = _threads(threads)
    code, places = CODES[a.dtype], (a.data_ptr(), b.data_ptr())
    try:
        _C.dot(variant, code, *places, a.numel(), workers, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def norm(x: Tensor, variant: str, threads: int | None) -> Tensor:
    """The root of the sum of squares of a contiguous CPU tensor, as a 0-d tensor."""
    result = torch.empty((), dtype=x.dtype, device="cpu")
    workers = _threads(threads)
    try:
        _C.norm(variant, CODES[x.dtype], x.data_ptr(), x.numel(), workers, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def var_mean(
    x: Tensor, rows: int, shape: list[int], correction: int, variant: str, threads: int | None
) -> tuple[Tensor, Tensor]:
    """Variances and means of the rows of a contiguous CPU tensor, both of this shape."""
    var = torch.empty(shape, dtype=x.dtype, device="cpu")
    mean = torch.empty(shape, dtype=x.dtype, device="cpu")
    if rows == 0:
        return var, mean
    workers = _threads(threads)
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
    workers, rows = _threads(threads), x.numel() // n
    try:
        _C.cumsum(variant, CODES[x.dtype], x.data_ptr(), rows, n, workers, "", sums.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return sums
