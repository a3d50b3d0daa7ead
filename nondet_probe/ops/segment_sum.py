"""Sums over runs of neighbouring rows, in three variants from no guarantee to correctly rounded.

    >>> import torch
    >>> x = torch.tensor([1e8, 1.0, -1e8, 2.0, 3.0])
    >>> segment_sum(x, lengths=torch.tensor([3, 0, 2]))
    tensor([1., 0., 5.])

What each variant promises, its error bound and its cost: `registry.variants("segment_sum")`,
docs/ops/segment_sum.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops.checks import check_dtype, readable
from nondet_probe.ops.define import define
from nondet_probe.ops.rational import exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["segment_sum", "segment_sum_ref"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32)

register(
    Variant(
        op="segment_sum",
        name="atomic",
        guarantee=Guarantee.NONE,
        cross_device=False,
        batch_invariant=False,
        error_bound=(
            "d u/(1 - d u) sum|x|, d = 7 + ceil(n/64) for a segment of n rows, then one rounding "
            "to the dtype"
        ),
        extra_memory="a float a result, and a row a thread",
        worst_case="from two threads up every call may give other bits, in long segments",
        dtypes=_DTYPES,
        doc="Threads add blocks of 64 rows to shared floats, in the order in which they arrive.",
    )
)
register(
    Variant(
        op="segment_sum",
        name="ordered",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "d u/(1 - d u) sum|x|, d = 69 + ceil(log2(ceil(n/4096))) for a segment of n rows, then "
            "one rounding to the dtype; infinite where a partial sum overflows"
        ),
        extra_memory="a row a thread; a row for every 4096 in longer segments",
        worst_case="cancellation: the bound is relative to sum|x|, not to the result",
        dtypes=_DTYPES,
        doc="Every column of a segment in the order of sum's fixed_order.",
    )
)
register(
    Variant(
        op="segment_sum",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of the result, always",
        extra_memory=(
            "three rows of fp64 a thread, and for every 4096 rows in longer segments; 600 bytes a "
            "column that does not fit into two fp64 numbers"
        ),
        worst_case=(
            "columns that span more than about 100 binades, or hold an infinity or NaN, are added "
            "one element at a time"
        ),
        dtypes=_DTYPES,
        doc="Error-free additions into two fp64 numbers, checked; else into a fixed-point number.",
    )
)


def segment_sum(
    data: Tensor,
    *,
    lengths: Tensor | None = None,
    offsets: Tensor | None = None,
    variant: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """The sums over runs of rows of `data`, as `torch.segment_reduce(data, "sum")` along axis 0.

    data: CPU tensor [n, ...]; float64, float32, bfloat16 or float16. One that is not contiguous is
        copied.
    lengths: int64 or int32 [segments]: the rows of each segment, which must add up to n. Or
    offsets: int64 or int32 [segments + 1]: where each segment starts, from 0 up to n.
    variant: "exact" (the default: the strongest promise is also fast), "ordered" or "atomic".
    threads: the most to use; None is torch.get_num_threads().

    Returns [segments, ...] of data's dtype. A segment without rows is +0. NaN is always the
    positive quiet NaN without payload; a zero is -0.0 only where every addend is -0.0.
    Differentiable in reverse mode, any number of times.

    Raises UnknownNameError for an unknown variant; TypeError for a device, dtype or layout that is
    not taken; UsageError for sizes that do not fit, both or neither of lengths and offsets, threads
    below 1 or an unknown NONDET_PROBE_ISA.
    """
    find("segment_sum", variant)
    if not isinstance(data, Tensor):
        raise TypeError(f"segment_sum takes a torch.Tensor, got {type(data).__name__}")
    result: Tensor = _segment_sum(data, lengths, offsets, variant, threads)
    return result


def segment_sum_ref(
    data: Tensor, *, lengths: Tensor | None = None, offsets: Tensor | None = None
) -> Tensor:
    """What `segment_sum(variant="exact")` must give, by fractions and integers alone. Slow."""
    if lengths is None:
        assert offsets is not None
        lengths = offsets.diff()
    segments = torch.split(data, lengths.tolist())
    columns = math.prod(data.shape[1:])
    sums = [
        tensor_of_bits(round_to_bits(exact_sum(column), data.dtype), data.dtype)
        for segment in segments
        for column in segment.reshape(len(segment), columns).unbind(1)
    ]
    shape = (len(segments), *data.shape[1:])
    return torch.stack(sums).reshape(shape) if sums else data.new_zeros(shape)


def _check(data: Tensor, lengths: Tensor | None, offsets: Tensor | None, variant: str) -> Tensor:
    check_dtype("segment_sum", variant, data)
    if data.dim() == 0:
        raise UsageError("segment_sum takes rows: data must have a first dimension")
    sizes = lengths if offsets is None else offsets
    if sizes is None or (lengths is not None and offsets is not None):
        raise UsageError("segment_sum takes either lengths or offsets")
    if sizes.dtype not in _INTEGERS:
        raise TypeError(f"lengths and offsets are int64 or int32, got {sizes.dtype}")
    if sizes.dim() != 1:
        raise UsageError(f"lengths and offsets have one dimension, got shape {tuple(sizes.shape)}")
    return sizes


def _segments(sizes: Tensor, by_offsets: bool) -> int | torch.SymInt:
    if not by_offsets:
        return sizes.shape[0]
    if sizes.shape[0] == 0:
        raise UsageError("offsets has one element more than there are segments, got none")
    return sizes.shape[0] - 1


def _on_cpu(
    data: Tensor,
    lengths: Tensor | None,
    offsets: Tensor | None,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    sizes = _check(data, lengths, offsets, variant)
    data, sizes = readable(data), readable(sizes)
    _segments(sizes, offsets is not None)
    if sizes.dtype is not torch.int64:
        sizes = sizes.to(torch.int64)
    return via(data).segment_sum(data, sizes, offsets is not None, variant, threads)  # type: ignore[no-any-return]


def _without_data(
    data: Tensor,
    lengths: Tensor | None,
    offsets: Tensor | None,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    sizes = _check(data, lengths, offsets, variant)
    return data.new_empty((_segments(sizes, offsets is not None), *data.shape[1:]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    data, lengths, offsets, ctx.variant, ctx.threads = inputs
    ctx.rows = data.shape[0]
    ctx.save_for_backward(lengths, offsets)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    of_rows = _segment_expand(gradient, *ctx.saved_tensors, ctx.rows, ctx.variant, ctx.threads)
    return of_rows, None, None, None, None


_segment_sum = define(
    "segment_sum",
    "(Tensor data, Tensor? lengths, Tensor? offsets, str variant, int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep,
    backward=_backward,
    cuda=True,
)


# ---- the derivative: the row of a segment for each of its rows. Its own derivative is the sum.


def _expand_on_cpu(
    rows_of: Tensor,
    lengths: Tensor | None,
    offsets: Tensor | None,
    rows: int,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    counts = lengths if offsets is None else offsets.diff()
    assert counts is not None
    return rows_of.repeat_interleave(counts.to(torch.int64), 0, output_size=rows)


def _expand_without_data(
    rows_of: Tensor,
    lengths: Tensor | None,
    offsets: Tensor | None,
    rows: int,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    return rows_of.new_empty((rows, *rows_of.shape[1:]))


def _keep_expand(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, lengths, offsets, _, ctx.variant, ctx.threads = inputs
    ctx.save_for_backward(lengths, offsets)


def _expand_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    summed = _segment_sum(gradient, *ctx.saved_tensors, ctx.variant, ctx.threads)
    return summed, None, None, None, None, None


_segment_expand = define(
    "segment_expand",
    "(Tensor rows_of, Tensor? lengths, Tensor? offsets, SymInt rows, str variant,"
    " int? threads=None) -> Tensor",
    kernel=_expand_on_cpu,
    fake=_expand_without_data,
    setup_context=_keep_expand,
    backward=_expand_backward,
    cuda=True,
)
