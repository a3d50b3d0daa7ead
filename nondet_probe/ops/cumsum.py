"""Prefix sums along one dimension, in two variants.

    >>> import torch
    >>> x = torch.tensor([1e8, 1e-8, -1e8, 1.0])
    >>> cumsum(x, 0)
    tensor([1.0000e+08, 1.0000e+08, 1.0000e-08, 1.0000e+00])
    >>> cumsum(x, 0, variant="fixed_order")
    tensor([1.0000e+08, 1.0000e+08, 0.0000e+00, 1.0000e+00])

What each variant promises, its error bound and its cost: `registry.variants("cumsum")`,
docs/ops/cumsum.md.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from nondet_probe.ops.checks import check_dtype, check_memory
from nondet_probe.ops.define import define
from nondet_probe.ops.dims import as_rows, checked_dims
from nondet_probe.ops.rational import round_to_bits, tensor_of_bits
from nondet_probe.ops.rational_products import add_up, elements
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["cumsum", "cumsum_ref"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

register(
    Variant(
        op="cumsum",
        name="fixed_order",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "d u/(1 - d u) sum|x| over the prefix, d = 128 + ceil(n/4096), then one rounding to "
            "the dtype; infinite or NaN where a partial sum overflows"
        ),
        extra_memory="a copy of x and of the result unless dim is the last; n/4096 floats",
        worst_case="cancellation: the bound is relative to sum|x|, not to the result",
        dtypes=_DTYPES,
        doc="Blocks of 64, chunks of 64 blocks: an order that depends on the place alone.",
    )
)
register(
    Variant(
        op="cumsum",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of every prefix, always",
        extra_memory="a copy of x and of the result unless dim is the last; n/256 bytes",
        worst_case=(
            "a row that spans more than 126 bits, log2(n) of them for carries, or holds an inf "
            "or NaN, goes through a wide accumulator on one thread, about 20 times as slowly"
        ),
        dtypes=_DTYPES,
        doc="128-bit integers in units of the row's last bit; every prefix is rounded once.",
    )
)


def cumsum(x: Tensor, dim: int, *, variant: str = "exact", threads: int | None = None) -> Tensor:
    """The sums of the elements up to each one along `dim`, as a contiguous tensor like x.

    x: CPU tensor of any shape; float64, float32, bfloat16 or float16.
    dim: negative ones count from the end; a 0-d tensor has 0 and -1.
    variant: "exact" (the default: the strongest promise) or "fixed_order". Never replaced by the
        other one.
    threads: the most to use; None is torch.get_num_threads().

    The bits depend on the elements along `dim`, not on strides. Once an infinity or a NaN was met
    the sums are what IEEE 754 makes of it; NaN is always the positive quiet NaN without payload. A
    zero is -0.0 only where every element up to it is. The process's rounding mode and flush-to-zero
    setting have no influence. Differentiable in reverse mode, by sums of the same variant.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, IndexError for a dim that x does not have, UsageError for threads below 1 or an
    unknown NONDET_PROBE_ISA.
    """
    find("cumsum", variant)
    if not isinstance(x, Tensor):
        raise TypeError(f"cumsum takes a torch.Tensor, got {type(x).__name__}")
    result: Tensor = _cumsum(x, dim, variant, threads)
    return result


def cumsum_ref(x: Tensor, dim: int) -> Tensor:
    """What `cumsum(x, dim, variant="exact")` must give, by fractions alone. Slow: the square of
    the length."""
    dims = checked_dims(dim, x.ndim)
    rows = as_rows(x, dims)
    n = rows.shape[-1] if rows.dim() else 1
    sums = []
    for start in range(0, rows.numel(), max(n, 1)):
        values = elements(rows.reshape(-1)[start : start + n])
        running: Fraction | float = values[0]
        sums.append(running)
        for value in values[1:]:
            running = add_up([running, value])
            sums.append(running)
    bits = [tensor_of_bits(round_to_bits(value, x.dtype), x.dtype) for value in sums]
    flat = torch.stack(bits) if bits else x.new_empty(0)
    return _put_back(flat.reshape(rows.shape), dims)


def _put_back(rows: Tensor, dims: list[int]) -> Tensor:
    if not dims or dims[0] == rows.dim() - 1:
        return rows
    return rows.movedim(-1, dims[0]).contiguous()


def _on_cpu(x: Tensor, dim: int, variant: str, threads: int | None = None) -> Tensor:
    check_dtype("cumsum", variant, x)
    dims = checked_dims(dim, x.ndim)
    check_memory(x)
    rows = as_rows(x, dims)
    n = rows.shape[-1] if dims else 1
    return _put_back(via(rows).cumsum(rows, n, variant, threads), dims)


def _without_data(x: Tensor, dim: int, variant: str, threads: int | None = None) -> Tensor:
    check_dtype("cumsum", variant, x)
    checked_dims(dim, x.ndim)
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, int, str, int | None], output: Tensor) -> None:
    _, ctx.dim, ctx.variant, ctx.threads = inputs


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    dims = [ctx.dim] if gradient.dim() else []
    from_the_end = _cumsum(gradient.flip(dims), ctx.dim, ctx.variant, ctx.threads)
    return from_the_end.flip(dims), None, None, None


_cumsum = define(
    "cumsum",
    "(Tensor x, int dim, str variant, int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep,
    backward=_backward,
    cuda=True,
)
