"""Rows of a table by their numbers. The forward pass is a copy; its derivative adds up the
gradients of equal numbers, in three variants from no guarantee to correctly rounded.

    >>> import torch
    >>> weight = torch.zeros(3, 1, requires_grad=True)
    >>> rows = embedding(torch.tensor([0, 2, 2, 2]), weight)
    >>> rows.backward(torch.tensor([[1.0], [1e8], [1.0], [-1e8]]))
    >>> weight.grad.flatten()
    tensor([1., 0., 1.])

What each variant promises, its error bound and its cost: `registry.variants("embedding")`,
docs/ops/embedding.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops.checks import check_dtype, check_memory, readable
from nondet_probe.ops.define import define
from nondet_probe.ops.rational import exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["embedding", "embedding_ref", "take_rows"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32)
_DIVIDED = "; scale_grad_by_freq divides this sum, rounded to the dtype, and rounds again"

register(
    Variant(
        op="embedding",
        name="atomic",
        guarantee=Guarantee.NONE,
        cross_device=False,
        batch_invariant=False,
        error_bound="n u/(1 - n u) sum|x| over the n gradients of a row, u of the dtype" + _DIVIDED,
        extra_memory="none",
        worst_case="one number everywhere: all threads add to one row, and wait for each other",
        dtypes=_DTYPES,
        doc="Threads add to the shared gradient of the table, in the order in which they arrive.",
    )
)
register(
    Variant(
        op="embedding",
        name="ordered",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=False,
        error_bound=(
            "n u/(1 - n u) sum|x| over the n gradients of a row, then one rounding to the dtype"
            + _DIVIDED
        ),
        extra_memory="as index_add's ordered",
        worst_case="cancellation: the bound is relative to sum|x|, not to the result",
        dtypes=_DTYPES,
        doc="The order of the additions is a function of the numbers alone: index_add's ordered.",
    )
)
register(
    Variant(
        op="embedding",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of the result" + _DIVIDED,
        extra_memory="as index_add's exact",
        worst_case="gradients of one row that span many binades, or hold an infinity or NaN",
        dtypes=_DTYPES,
        doc="The exact sum of the gradients of each row, rounded once: index_add's exact.",
    )
)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    *,
    scale_grad_by_freq: bool = False,
    variant: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """weight[input], as `torch.nn.functional.embedding`; the variant is that of the backward pass.

    input: CPU tensor of any shape, int64 or int32, of numbers in [0, rows).
    weight: CPU tensor [rows, columns]; float64, float32, bfloat16 or float16.
    padding_idx: a row of weight whose gradient is zero; a negative one counts from the end.
    scale_grad_by_freq: divides the gradient of a row by how often its number occurs, once, after
        the sum has been rounded to the dtype: a second rounding, in every variant.
    variant: "exact" (the default: the strongest promise is also fast), "ordered" or "atomic".
    threads: the most to use, forward and backward; None is torch.get_num_threads().

    Returns [*input.shape, columns]. Differentiable in reverse mode by weight, any number of times.

    Raises UnknownNameError for an unknown variant; TypeError for a device, dtype or layout that is
    not taken; IndexError naming the first number that is out of range and its position; UsageError
    for a weight that is no matrix, a padding_idx that is no row or threads below 1.
    """
    find("embedding", variant)
    if not isinstance(input, Tensor) or not isinstance(weight, Tensor):
        raise TypeError(
            "embedding takes input and weight as torch.Tensor, got "
            f"{type(input).__name__} and {type(weight).__name__}"
        )
    check_dtype("embedding", variant, weight)
    if weight.dim() != 2:
        raise UsageError(f"weight must have two dimensions, got shape {tuple(weight.shape)}")
    rows = weight.shape[0]
    if padding_idx is None:
        padding_idx = -1
    elif not -rows <= padding_idx < rows:
        raise UsageError(
            f"padding_idx must be a row of weight, in [-{rows}, {rows}), got {padding_idx}"
        )
    elif padding_idx < 0:
        padding_idx += rows
    rows_of: Tensor = take_rows(input, weight, padding_idx, scale_grad_by_freq, variant, threads)
    return rows_of


def embedding_ref(
    gradient: Tensor,
    input: Tensor,
    rows: int,
    padding_idx: int | None = None,
    *,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """What the gradient of weight must be in `variant="exact"`, by fractions and integers alone.

    gradient: [*input.shape, columns], that of the result. rows: of weight. Slow."""
    numbers = input.reshape(-1).tolist()
    of_numbers = gradient.reshape(len(numbers), gradient.shape[-1])
    result = gradient.new_zeros(rows, gradient.shape[-1])
    padding = padding_idx if padding_idx is None or padding_idx >= 0 else padding_idx + rows
    for row in set(numbers) - {padding}:
        places = [place for place, number in enumerate(numbers) if number == row]
        for column in range(gradient.shape[-1]):
            added = of_numbers[places, column]
            total = exact_sum(torch.cat([added, added.new_zeros(1)]))
            bits = round_to_bits(total, gradient.dtype)
            if scale_grad_by_freq:
                total = exact_sum(tensor_of_bits(bits, gradient.dtype).reshape(1))
                bits = round_to_bits(total / len(places), gradient.dtype)
            result[row, column] = tensor_of_bits(bits, gradient.dtype)
    return result


def _numbers(input: Tensor) -> Tensor:
    if input.dtype not in _INTEGERS:
        raise TypeError(f"embedding takes int64 and int32 as input, got {input.dtype}")
    numbers = readable(input)
    return numbers if numbers.dtype is torch.int64 else numbers.to(torch.int64)


def _on_cpu(
    input: Tensor,
    weight: Tensor,
    padding: int,
    scale: bool,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    numbers = _numbers(input)
    check_memory(weight)
    rows = weight.shape[0]
    bad = via(numbers).first_bad_index(numbers, rows)
    if bad >= 0:
        raise IndexError(
            f"index {numbers.reshape(-1)[bad].item()} at position {bad} is out of range for "
            f"{rows} rows"
        )
    if weight.dim() == 2:
        return torch.embedding(weight, numbers)
    found = weight.index_select(0, numbers.reshape(-1))
    if input.dim() == 1:
        return found
    return found.reshape(*input.shape, *weight.shape[1:]).clone()


def _without_data(
    input: Tensor,
    weight: Tensor,
    padding: int,
    scale: bool,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    return weight.new_empty((*input.shape, *weight.shape[1:]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, weight, *ctx.others = inputs
    ctx.rows = weight.shape[0]
    ctx.save_for_backward(input)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (input,) = ctx.saved_tensors
    return None, _add_rows(gradient, input, ctx.rows, *ctx.others), None, None, None, None


take_rows = define(
    "embedding",
    "(Tensor input, Tensor weight, int padding, bool scale, str variant, int? threads=None)"
    " -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep,
    backward=_backward,
    cuda=True,
)
"""weight[input] for a weight of any number of dimensions; padding: -1 for none. The variants are
those of the scatter core."""


# ---- the derivative, which is the reduction. Its own derivative takes rows again.


def _add_on_cpu(
    gradient: Tensor,
    input: Tensor,
    rows: int,
    padding: int,
    scale: bool,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    check_memory(gradient)
    numbers = _numbers(input)
    columns = gradient.shape[input.dim() :]
    kernels = via(gradient)
    result = gradient.new_zeros((rows, *columns))
    if rows > numbers.numel():  # most rows stay untouched, and need not even be looked at
        named, places = torch.unique(numbers.reshape(-1), return_inverse=True)
        sums = gradient.new_zeros((named.numel(), *columns))
        kernels.scatter_rows(sums, named.numel(), places, gradient.contiguous(), variant, threads)
        result.index_copy_(0, named, sums)
    else:
        kernels.scatter_rows(result, rows, numbers, gradient.contiguous(), variant, threads)
    if padding >= 0:
        result[padding] = 0.0
    if scale:
        kernels.divide_rows(result, kernels.count(numbers, rows, threads))
    return result


def _add_without_data(
    gradient: Tensor,
    input: Tensor,
    rows: int,
    padding: int,
    scale: bool,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    return gradient.new_empty((rows, *gradient.shape[input.dim() :]))


def _keep_add(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, input, ctx.rows, ctx.padding, ctx.scale, ctx.variant, ctx.threads = inputs
    ctx.save_for_backward(input)


def _add_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (input,) = ctx.saved_tensors
    if ctx.padding >= 0:
        kept = torch.arange(ctx.rows, device=gradient.device) != ctx.padding
        gradient = torch.where(kept.reshape(-1, *[1] * (gradient.dim() - 1)), gradient, 0.0)
    if ctx.scale:
        counts = input.reshape(-1).long().bincount(minlength=ctx.rows).clamp(min=1)
        gradient = gradient / counts.reshape(-1, *[1] * (gradient.dim() - 1)).to(gradient.dtype)
    rows = take_rows(input, gradient, -1, False, ctx.variant, ctx.threads)
    return rows, None, None, None, None, None, None


_add_rows = define(
    "embedding_backward",
    "(Tensor gradient, Tensor input, SymInt rows, int padding, bool scale, str variant,"
    " int? threads=None) -> Tensor",
    kernel=_add_on_cpu,
    fake=_add_without_data,
    setup_context=_keep_add,
    backward=_add_backward,
    cuda=True,
)
