"""The operators behind `sum` and `mean`: over all elements, and over dimensions.

Two operators each, since a list of dimensions costs every call some microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from nondet_probe.ops.checks import check_dtype, check_memory
from nondet_probe.ops.define import define
from nondet_probe.ops.dims import checked_dims, result_shape
from nondet_probe.ops.registry import variants
from nondet_probe.ops.sum_variants import SUM_DTYPES
from nondet_probe.ops.via import via

__all__ = ["define_sums"]


def _spread(gradient: Tensor, shape: Sequence[int]) -> Tensor:
    """expand, of which torch reads the sizes 1 us faster when they are not in a torch.Size."""
    return gradient.expand(*shape) if shape else gradient


def define_sums(op: str, *, mean: bool) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Register `nondet_probe::<op>` (x, variant, threads) and `nondet_probe::<op>_dim` (x, dim,
    keepdim, variant, threads), and return the functions that call them."""

    names = frozenset(variant.name for variant in variants(op))

    def check(x: Tensor, variant: str) -> None:
        if variant not in names or x.dtype not in SUM_DTYPES:
            check_dtype(op, variant, x)

    def full_sum(x: Tensor, variant: str, threads: int | None = None) -> Tensor:
        check(x, variant)
        check_memory(x)
        kernels = via(x)
        result: Tensor
        if x.is_contiguous():
            result = kernels.sum_all(x, variant, mean, threads)
        else:
            result = kernels.sum_over(x, list(range(x.ndim)), [], variant, mean, threads)
        return result

    def full_fake(x: Tensor, variant: str, threads: int | None = None) -> Tensor:
        check(x, variant)
        return x.new_empty(())

    def full_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.shape = inputs[0].shape

    def full_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        if mean:
            gradient = gradient / ctx.shape.numel()
        return _spread(gradient, ctx.shape), None, None

    def dim_sum(
        x: Tensor, dim: Sequence[int], keepdim: bool, variant: str, threads: int | None = None
    ) -> Tensor:
        check(x, variant)
        check_memory(x)
        dims = checked_dims(dim, x.ndim)
        shape = result_shape(x.shape, dims, keepdim)
        result: Tensor = via(x).sum_over(x, dims, shape, variant, mean, threads)
        return result

    def dim_fake(
        x: Tensor, dim: Sequence[int], keepdim: bool, variant: str, threads: int | None = None
    ) -> Tensor:
        check(x, variant)
        return x.new_empty(result_shape(x.shape, checked_dims(dim, x.ndim), keepdim))

    def dim_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, dim, ctx.keepdim = inputs[:3]
        ctx.shape, ctx.dims = x.shape, checked_dims(dim, x.ndim)

    def dim_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        count = 1
        for dim in ctx.dims:
            count *= ctx.shape[dim]
            if not ctx.keepdim:
                gradient = gradient.unsqueeze(dim)
        if mean:
            gradient = gradient / count
        return _spread(gradient, ctx.shape), None, None, None, None

    full = define(
        op,
        "(Tensor x, str variant, int? threads=None) -> Tensor",
        kernel=full_sum,
        fake=full_fake,
        setup_context=full_context,
        backward=full_backward,
        cuda=True,
    )
    over_dims = define(
        f"{op}_dim",
        "(Tensor x, int[] dim, bool keepdim, str variant, int? threads=None) -> Tensor",
        kernel=dim_sum,
        fake=dim_fake,
        setup_context=dim_context,
        backward=dim_backward,
        cuda=True,
    )
    return full, over_dims
