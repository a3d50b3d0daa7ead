"""Tensors on their way into the kernels of `nondet_probe._C`; the only module in `ops` that
imports it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError

__all__ = [
    "checked_indices",
    "cumsum",
    "dot",
    "matmul",
    "norm",
    "scatter_rows",
    "sum_all",
    "sum_over",
    "var_mean",
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
