"""How often each number occurs, or the sum of its weights, in four variants from no guarantee to
correctly rounded.

    >>> import torch
    >>> bincount(torch.tensor([1, 3, 1, 1]), torch.tensor([1e8, 2.0, 1.0, -1e8]))
    tensor([0., 1., 0., 2.])

What each variant promises, its error bound and its cost: `registry.variants("bincount")`,
docs/ops/bincount.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops.checks import check_dtype, readable
from nondet_probe.ops.define import define
from nondet_probe.ops.embedding import take_rows
from nondet_probe.ops.rational import exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["bincount", "bincount_ref"]

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
# To float64 as the process's rounding mode and flush-to-zero setting have it, where torch does it.
_ROUNDED_BY_TORCH = (torch.bfloat16, torch.float16, torch.int64)
_DTYPES = (*_FLOATS, *_INTEGERS, torch.bool)

register(
    Variant(
        op="bincount",
        name="atomic",
        guarantee=Guarantee.NONE,
        cross_device=False,
        batch_invariant=False,
        error_bound="n u/(1 - n u) sum|w| over the n weights of a bin",
        extra_memory="8 bytes an element where input is not int64",
        worst_case="from two threads up every call may give other bits",
        dtypes=_DTYPES,
        doc="Threads add to shared bins, in the order in which they arrive.",
    )
)
register(
    Variant(
        op="bincount",
        name="ordered",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=False,
        error_bound="n u/(1 - n u) sum|w| over the n weights of a bin",
        extra_memory="as index_add's ordered",
        worst_case="cancellation: the bound is relative to sum|w|, not to the result",
        dtypes=_DTYPES,
        doc="The order of the additions is a function of the input alone: index_add's ordered.",
    )
)
register(
    Variant(
        op="bincount",
        name="fixed_point",
        guarantee=Guarantee.ORDER_INVARIANT,
        cross_device=False,
        batch_invariant=False,
        error_bound=(
            "n (N + 1) max|w| 2^-61, N weights in all, of which n in the bin, then one rounding"
        ),
        extra_memory="as index_add's fixed_point",
        worst_case="a bin whose weights are small beside the largest weight of all",
        dtypes=_DTYPES,
        doc="Weights on one absolute grid, added as integers: index_add's fixed_point.",
    )
)
register(
    Variant(
        op="bincount",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of the result, always",
        extra_memory="as index_add's exact",
        worst_case="weights of one bin that span many binades, or hold an infinity or NaN",
        dtypes=_DTYPES,
        doc="The exact sum of each bin, rounded once: index_add's exact.",
    )
)


def bincount(
    input: Tensor,
    weights: Tensor | None = None,
    minlength: int = 0,
    *,
    variant: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """The number of elements of each value, or the sum of their weights, as `torch.bincount`.

    input: CPU tensor [n] of integers from 0 up, of any integer dtype that torch.bincount takes.
    weights: None or CPU tensor [n] of a real dtype.
    minlength: the least number of bins. There are at least max(input) + 1.
    variant: "exact" (the default: the strongest promise is also fast), "fixed_point", "ordered" or
        "atomic". Without weights all of them count, in integers, which is exact.
    threads: the most to use; None is torch.get_num_threads().

    Returns [bins]: int64 without weights, float32 for weights of float32, and float64 for weights
    of any other dtype, which are converted first (torch's rule). Bins start at +0. Differentiable
    in reverse mode by weights, any number of times.

    Raises UnknownNameError for an unknown variant; TypeError for a device, dtype or layout that is
    not taken; IndexError naming the first negative number and its position; UsageError for other
    shapes, a negative minlength or threads below 1.
    """
    find("bincount", variant)
    if not isinstance(input, Tensor):
        raise TypeError(f"bincount takes a torch.Tensor, got {type(input).__name__}")
    result: Tensor = _bincount(input, weights, minlength, variant, threads)
    return result


def bincount_ref(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """What `bincount(variant="exact")` must give, by fractions and integers alone. Slow."""
    numbers = input.tolist()
    bins = max([minlength, *(number + 1 for number in numbers)])
    if weights is None:
        return torch.tensor([numbers.count(bin) for bin in range(bins)], dtype=torch.int64)
    weights = weights if weights.dtype is torch.float32 else weights.to(torch.float64)
    result = weights.new_zeros(bins)
    for bin in set(numbers):
        places = [place for place, number in enumerate(numbers) if number == bin]
        total = exact_sum(torch.cat([weights[places], weights.new_zeros(1)]))
        result[bin] = tensor_of_bits(round_to_bits(total, weights.dtype), weights.dtype)
    return result


def _check(input: Tensor, weights: Tensor | None, minlength: int, variant: str) -> torch.dtype:
    """The dtype of the result."""
    if input.dtype not in _INTEGERS:
        raise TypeError(f"bincount takes integers, got {input.dtype}")
    if input.dim() != 1:
        raise UsageError(f"bincount takes one dimension, got shape {tuple(input.shape)}")
    if minlength < 0:
        raise UsageError(f"minlength must be at least 0, got {minlength}")
    if weights is None:
        return torch.int64
    check_dtype("bincount", variant, weights)
    if weights.shape != input.shape:
        raise UsageError(
            f"weights must have the shape of input, {tuple(input.shape)}, got "
            f"{tuple(weights.shape)}"
        )
    return torch.float32 if weights.dtype is torch.float32 else torch.float64


def _on_cpu(
    input: Tensor,
    weights: Tensor | None,
    minlength: int,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    dtype = _check(input, weights, minlength, variant)
    numbers = readable(input)
    if numbers.dtype is not torch.int64:
        numbers = numbers.to(torch.int64)
    bins, kernels = minlength, via(numbers)
    if numbers.numel() > 0:
        least, most = kernels.extremes(numbers)
        if least < 0:
            at = int((numbers < 0).to(torch.uint8).argmax())
            raise IndexError(f"index {numbers[at].item()} at position {at} is negative")
        bins = max(minlength, most + 1)
    if weights is None:
        return kernels.count(numbers, bins, threads)  # type: ignore[no-any-return]
    weights = readable(weights)
    if weights.dtype in _ROUNDED_BY_TORCH:
        weights = kernels.widen(weights)
    elif weights.dtype is not dtype:
        weights = weights.to(dtype)
    result = weights.new_zeros(bins)
    kernels.scatter_rows(result, bins, numbers, weights, variant, threads)
    return result


def _without_data(
    input: Tensor,
    weights: Tensor | None,
    minlength: int,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    dtype = _check(input, weights, minlength, variant)
    bins = torch.library.get_ctx().new_dynamic_size(min=minlength)
    return input.new_empty((bins,), dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weights, _, ctx.variant, ctx.threads = inputs
    ctx.dtype = None if weights is None else weights.dtype
    ctx.save_for_backward(input)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (input,) = ctx.saved_tensors
    of_weights = take_rows(input.to(torch.int64), gradient, -1, False, ctx.variant, ctx.threads)
    return None, of_weights.to(ctx.dtype), None, None, None


_bincount = define(
    "bincount",
    "(Tensor input, Tensor? weights, int minlength, str variant, int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep,
    backward=_backward,
    cuda=True,
)
