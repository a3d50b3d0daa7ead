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
    "matmul",
    "sum_all",
    "sum_over",
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
