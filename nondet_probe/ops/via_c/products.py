"""`matmul`, `dot`, `norm`, `var` and `cumsum`: the way into `_C`."""

from __future__ import annotations

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.via_c.room import room
from nondet_probe.ops.via_c.threads import at_most

__all__ = [
    "batch_strides",
    "cumsum",
    "dot",
    "matmul",
    "norm",
    "var_mean",
]


def matmul(
    a: Tensor, b: Tensor, shape: tuple[int, ...], variant: str, threads: int | None
) -> Tensor:
    """The product, of this shape, of two CPU tensors of one dtype and two dimensions or more.

    threads and UsageError: as for sum_all.
    """
    threads = at_most(threads)
    result = room(a, shape)
    batch, (rows, columns) = shape[:-2], shape[-2:]
    a_row, a_k = a.stride()[-2:]
    b_k, b_column = b.stride()[-2:]
    try:
        _C.matmul(
            variant,
            CODES[a.dtype],
            a.data_ptr(),
            b.data_ptr(),
            result.data_ptr(),
            rows,
            columns,
            a.shape[-1],
            a_row,
            a_k,
            b_k,
            b_column,
            batch,
            batch_strides(a, len(batch)) if batch else (),
            batch_strides(b, len(batch)) if batch else (),
            threads,
            "",
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def batch_strides(x: Tensor, dims: int) -> list[int]:
    """Of the last `dims` dimensions before the matrix; 0 where x is repeated along one."""
    own = [
        0 if size == 1 else stride
        for size, stride in zip(x.shape[:-2], x.stride()[:-2], strict=True)
    ]
    return [0] * (dims - len(own)) + own


def dot(a: Tensor, b: Tensor, variant: str, threads: int | None) -> Tensor:
    """The sum of products of two contiguous CPU tensors of one dtype and size, as a 0-d tensor."""
    result = a.new_empty(())
    workers = at_most(threads)
    code, places = CODES[a.dtype], (a.data_ptr(), b.data_ptr())
    try:
        _C.dot(variant, code, *places, a.numel(), workers, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def norm(x: Tensor, variant: str, threads: int | None) -> Tensor:
    """The root of the sum of squares of a contiguous CPU tensor, as a 0-d tensor."""
    result = x.new_empty(())
    workers = at_most(threads)
    try:
        _C.norm(variant, CODES[x.dtype], x.data_ptr(), x.numel(), workers, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result


def var_mean(
    x: Tensor, rows: int, shape: list[int], correction: int, variant: str, threads: int | None
) -> tuple[Tensor, Tensor]:
    """Variances and means of the rows of a contiguous CPU tensor, both of this shape."""
    var = room(x, shape)
    mean = room(x, shape)
    if rows == 0:
        return var, mean
    workers = at_most(threads)
    code, n = CODES[x.dtype], x.numel() // rows
    places = (var.data_ptr(), mean.data_ptr())
    try:
        _C.var_mean(variant, code, x.data_ptr(), rows, n, correction, workers, "", *places)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return var, mean


def cumsum(x: Tensor, n: int, variant: str, threads: int | None) -> Tensor:
    """Prefix sums of the rows, of n elements each, of a contiguous CPU tensor; of its shape."""
    sums = torch.empty_like(x)
    if x.numel() == 0:
        return sums
    workers, rows = at_most(threads), x.numel() // n
    try:
        _C.cumsum(variant, CODES[x.dtype], x.data_ptr(), rows, n, workers, "", sums.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return sums
