"""`dot`, `norm`, `cumsum` and `matmul`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.via_c.products import batch_strides
from nondet_probe.ops.via_cuda.library import (
    launch_blocks,
    library,
    no_threads,
    on_device,
    stream_of,
    workspace,
)

__all__ = ["cumsum", "dot", "matmul", "norm"]


def matmul(
    a: Tensor, b: Tensor, shape: tuple[int, ...], variant: str, threads: int | None
) -> Tensor:
    """The product, of this shape, of two tensors of one dtype and two dimensions or more.

    No tensor cores: `fixed_split` and `splitk_ordered` have the bits of the CPU, chain by chain.
    """
    _check("matmul", variant, ("splitk_atomic", "splitk_ordered", "fixed_split", "exact"))
    no_threads(threads)
    result = torch.empty(shape, dtype=a.dtype, device=a.device)
    *batch, rows, columns = shape
    *_, a_row, a_k = a.stride()
    *_, b_k, b_column = b.stride()
    code, k = CODES[a.dtype], a.shape[-1]
    with on_device(a):
        size = library().matmul_workspace(variant, code, rows, columns, k, math.prod(batch))
        memory = workspace(a, size)
        try:
            library().matmul(
                variant,
                code,
                a.data_ptr(),
                b.data_ptr(),
                result.data_ptr(),
                rows,
                columns,
                k,
                a_row,
                a_k,
                b_k,
                b_column,
                batch,
                batch_strides(a, len(batch)),
                batch_strides(b, len(batch)),
                memory.data_ptr(),
                launch_blocks(),
                stream_of(a),
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
    return result


def dot(a: Tensor, b: Tensor, variant: str, threads: int | None) -> Tensor:
    """The sum of products of two contiguous tensors of one dtype and size, as a 0-d tensor."""
    _check("dot", variant, ("fixed_order", "binned", "exact"))
    return _dot(a, b, False, variant, threads)


def norm(x: Tensor, variant: str, threads: int | None) -> Tensor:
    """The root of the sum of squares of a contiguous tensor, as a 0-d tensor."""
    _check("norm", variant, ("fixed_order", "binned", "exact"))
    return _dot(x, x, True, variant, threads)


def cumsum(x: Tensor, n: int, variant: str, threads: int | None) -> Tensor:
    """Prefix sums of the rows, of n elements each, of a contiguous tensor; of its shape."""
    _check("cumsum", variant, ("fixed_order", "exact"))
    no_threads(threads)
    sums = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return sums
    code, rows, blocks = CODES[x.dtype], x.numel() // n, launch_blocks()
    with on_device(x):
        memory = workspace(x, library().cumsum_workspace(variant, code, rows, n, blocks))
        library().cumsum(
            variant,
            code,
            x.data_ptr(),
            rows,
            n,
            sums.data_ptr(),
            memory.data_ptr(),
            blocks,
            stream_of(x),
        )
    return sums


def _check(op: str, variant: str, taken: tuple[str, ...]) -> None:
    if variant not in taken:
        raise UsageError(
            f"{op} variant {variant!r} has no kernel for CUDA; taken are {', '.join(taken)}, or "
            "pass tensors on cpu"
        )


def _dot(a: Tensor, b: Tensor, root: bool, variant: str, threads: int | None) -> Tensor:
    no_threads(threads)
    result = torch.empty((), dtype=a.dtype, device=a.device)
    code, n, blocks = CODES[a.dtype], a.numel(), launch_blocks()
    with on_device(a):
        memory = workspace(a, library().dot_workspace(variant, code, n, blocks))
        library().dot(
            variant,
            code,
            root,
            a.data_ptr(),
            b.data_ptr(),
            n,
            result.data_ptr(),
            memory.data_ptr(),
            blocks,
            stream_of(a),
        )
    return result
