"""`sum` and `mean`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.via_cuda.library import (
    launch_blocks,
    library,
    no_threads,
    on_device,
    stream_of,
    workspace,
)

__all__ = ["sum_all", "sum_over"]

_TAKEN = ("atomic", "two_pass", "fixed_order", "binned", "exact")


def sum_all(x: Tensor, variant: str, mean: bool, threads: int | None) -> Tensor:
    """The sum, or mean, of a tensor of a dtype that the variant takes: 0-d."""
    return sum_over(x, list(range(x.ndim)), [], variant, mean, threads)


def sum_over(
    x: Tensor,
    dims: Sequence[int],
    shape: Sequence[int],
    variant: str,
    mean: bool,
    threads: int | None,
) -> Tensor:
    """The same over the dimensions `dims`, to a result of this shape.

    A tensor whose reduced dimensions do not lie side by side is copied first.
    """
    no_threads(threads)
    if variant not in _TAKEN:
        raise UsageError(
            f"{'mean' if mean else 'sum'} variant {variant!r} has no kernel for CUDA; taken are "
            f"{', '.join(_TAKEN)}, or pass x.cpu()"
        )
    results = torch.empty(shape, dtype=x.dtype, device=x.device)
    x, outer, inner = _side_by_side(x, dims)
    n = math.prod(x.shape) // max(outer * inner, 1) if outer * inner else 0
    if results.numel() == 0:
        return results
    if n == 0:
        return results.fill_(math.nan if mean else 0.0)
    with on_device(x):
        size = library().sum_workspace(variant, CODES[x.dtype], outer, n, inner, launch_blocks())
        memory = workspace(x, size)
        library().sum(
            variant,
            CODES[x.dtype],
            mean,
            x.data_ptr(),
            outer,
            n,
            inner,
            results.data_ptr(),
            memory.data_ptr(),
            launch_blocks(),
            stream_of(x),
        )
    return results


def _side_by_side(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, int, int]:
    """x, contiguous, as [outer, reduced, inner], with the sizes of outer and inner: the reduced
    dimensions in their own order, and the others in theirs."""
    reduced = sorted(dims)
    kept = [dim for dim in range(x.ndim) if dim not in reduced]
    first, last = (reduced[0], reduced[-1] + 1) if reduced else (x.ndim, x.ndim)
    if last - first != len(reduced):
        x = x.permute(*kept, *reduced)
        first, last = len(kept), x.ndim
    x = x.contiguous()
    return x, math.prod(x.shape[:first]), math.prod(x.shape[last:])
