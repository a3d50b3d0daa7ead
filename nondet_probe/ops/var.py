"""Variance, and mean, over any dimensions, in three variants.

    >>> import torch
    >>> x = torch.tensor([16777216.0, 16777218.0, 16777220.0])
    >>> var(x)
    tensor(4.)
    >>> var_mean(x, variant="fixed_order")
    (tensor(4.), tensor(16777218.))

What each variant promises, its error bound and its cost: `registry.variants("var")`,
docs/ops/var.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from nondet_probe.ops.checks import check_dtype, check_memory
from nondet_probe.ops.define import define
from nondet_probe.ops.dims import as_rows, checked_dims, listed, result_shape
from nondet_probe.ops.rational import round_to_bits, tensor_of_bits
from nondet_probe.ops.rational_products import add_up, elements
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["var", "var_mean", "var_mean_ref", "var_ref"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_BOUND = (
    "barring overflow and underflow, mean: e = (d + 2) u/(1 - (d + 2) u) sum|x|/n; var: "
    "(d + 6) u/(1 - (d + 6) u) W + W - var, W = var + n/(n - correction) e^2; "
)

register(
    Variant(
        op="var",
        name="two_pass",
        guarantee=Guarantee.RUN_TO_RUN,
        cross_device=False,
        batch_invariant=False,
        error_bound=_BOUND + "d = 7 + n/64 + threads; then one rounding to the dtype",
        extra_memory="a copy of x unless the last dimensions are reduced; a float a thread",
        worst_case="a mean far from 0: the bound has the square of its error; other thread counts "
        "give other bits for rows from 8192 elements up",
        dtypes=_DTYPES,
        doc="A row is cut into one part a thread; mean, then squared deviations, in those parts.",
    )
)
register(
    Variant(
        op="var",
        name="fixed_order",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=_BOUND
        + "d = 69 + ceil(log2(ceil(n/4096))); then one rounding to the dtype; infinite or NaN "
        "where a sum overflows",
        extra_memory="a copy of x unless the last dimensions are reduced; n/4096 floats a thread",
        worst_case="a mean far from 0: the bound has the square of its error",
        dtypes=_DTYPES,
        doc="Mean, then squared deviations from it, both in the order of `sum`'s fixed_order.",
    )
)
register(
    Variant(
        op="var",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of the result, always; of var and of mean",
        extra_memory="a copy of x unless the last dimensions are reduced; 3 KiB a thread",
        worst_case="rows that hold an infinity or NaN, or span more than about 35 binades, are "
        "added block by block or one element at a time; fp64 rows below 1000 elements cost 3 us",
        dtypes=_DTYPES,
        doc="(n S2 - S1^2) / (n (n - correction)) from exact integer sums S1 of x and S2 of x^2.",
    )
)

Dims = int | Sequence[int] | None


def var(
    x: Tensor,
    dim: Dims = None,
    *,
    correction: int = 1,
    keepdim: bool = False,
    variant: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """The variance over `dim`: the sum of squared deviations over max(0, n - correction).

    x: CPU tensor of any shape; float64, float32, bfloat16 or float16.
    dim: one or several dimensions, negative ones from the end; None is all of them.
    correction: a whole number; 1 is Bessel's, 0 gives the variance of the population. From
        correction = n on nothing is left to divide by: as in torch the result is infinite, or NaN
        where all elements are equal or there are none.
    keepdim: keep the reduced dimensions, of size 1.
    variant: "exact" (the default: the strongest promise is also the fastest), "fixed_order" or
        "two_pass". Never replaced by another one.
    threads: the most to use; None is torch.get_num_threads().

    The bits depend on the elements in row-major order over the reduced dimensions, not on strides.
    NaN, always the positive quiet one without payload, where an element is infinite or NaN. Never
    -0.0. The process's rounding mode and flush-to-zero setting have no influence. Differentiable in
    reverse mode.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken or a correction that is no integer, IndexError for a dim that x does not have,
    UsageError for threads below 1 or an unknown NONDET_PROBE_ISA.
    """
    return var_mean(
        x, dim, correction=correction, keepdim=keepdim, variant=variant, threads=threads
    )[0]


def var_mean(
    x: Tensor,
    dim: Dims = None,
    *,
    correction: int = 1,
    keepdim: bool = False,
    variant: str = "exact",
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The variance, as by `var`, and the mean, of the same shape.

    A mean is -0.0 only where all its elements are, NaN where there are none.
    """
    find("var", variant)
    if not isinstance(x, Tensor):
        raise TypeError(f"var takes a torch.Tensor, got {type(x).__name__}")
    if not isinstance(correction, int):
        raise TypeError(f"var takes an int for correction, got {type(correction).__name__}")
    dims = None if dim is None else listed(dim)
    result: tuple[Tensor, Tensor] = _var_mean(x, dims, variant, correction, keepdim, threads)
    return result


def var_ref(x: Tensor, dim: Dims = None, *, correction: int = 1, keepdim: bool = False) -> Tensor:
    """What `var(x, ..., variant="exact")` must give, by fractions alone. Slow."""
    return var_mean_ref(x, dim, correction=correction, keepdim=keepdim)[0]


def var_mean_ref(
    x: Tensor, dim: Dims = None, *, correction: int = 1, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """What `var_mean(x, ..., variant="exact")` must give, by fractions alone. Slow."""
    dims = checked_dims(dim, x.ndim)
    shape = result_shape(x.shape, dims, keepdim)
    rows = math.prod(shape)
    n = math.prod(x.shape[dim] for dim in dims)
    found = [_row_ref(row, n, correction) for row in as_rows(x, dims).reshape(rows, n)]
    both = []
    for which in (0, 1):
        tensors = [tensor_of_bits(round_to_bits(row[which], x.dtype), x.dtype) for row in found]
        both.append(torch.stack(tensors).reshape(shape) if tensors else x.new_empty(shape))
    return both[0], both[1]


def _row_ref(row: Tensor, n: int, correction: int) -> tuple[Fraction | float, Fraction | float]:
    values = elements(row)
    total = add_up(values)
    if n == 0 or (isinstance(total, float) and total != 0):
        return math.nan, math.nan if n == 0 else total
    mean = Fraction(total) / n
    squares = sum((Fraction(value) ** 2 for value in values), Fraction(0))
    deviation = squares - n * mean**2
    if n <= correction:
        return math.inf if deviation else math.nan, total if isinstance(total, float) else mean
    return deviation / (n - correction), total if isinstance(total, float) else mean


def _on_cpu(
    x: Tensor,
    dim: list[int] | None,
    variant: str,
    correction: int = 1,
    keepdim: bool = False,
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    check_dtype("var", variant, x)
    dims = checked_dims(dim, x.ndim)
    check_memory(x)
    shape = result_shape(x.shape, dims, keepdim)
    return via(x).var_mean(  # type: ignore[no-any-return]
        as_rows(x, dims), math.prod(shape), shape, correction, variant, threads
    )


def _without_data(
    x: Tensor,
    dim: list[int] | None,
    variant: str,
    correction: int = 1,
    keepdim: bool = False,
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    check_dtype("var", variant, x)
    shape = result_shape(x.shape, checked_dims(dim, x.ndim), keepdim)
    return x.new_empty(shape), x.new_empty(shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, dim, _, correction, _, _ = inputs
    dims = checked_dims(dim, x.ndim)
    ctx.kept_shape = result_shape(x.shape, dims, True)
    ctx.n = math.prod(x.shape[dim] for dim in dims)
    ctx.correction = correction
    ctx.save_for_backward(x, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, of_var: Tensor | None, of_mean: Tensor | None) -> tuple[Tensor | None, ...]:
    x, mean = ctx.saved_tensors
    gradient = None
    if of_var is not None:
        freedom = max(ctx.n - ctx.correction, 0)
        slope = 2 / freedom if freedom else math.inf
        deviations = x - _kept(ctx, mean)
        gradient = _kept(ctx, of_var) * slope * deviations
    if of_mean is not None:
        share = _kept(ctx, of_mean) / ctx.n
        gradient = share.expand(x.shape) if gradient is None else gradient + share
    return gradient, None, None, None, None, None


def _kept(ctx: Any, x: Tensor) -> Tensor:
    """With the dimensions that were reduced in their places; not needed where none is kept."""
    return x.reshape(ctx.kept_shape) if x.dim() else x


_var_mean = define(
    "var_mean",
    "(Tensor x, int[]? dim, str variant, int correction=1, bool keepdim=False, int? threads=None) "
    "-> (Tensor, Tensor)",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep,
    backward=_backward,
    cuda=True,
)
