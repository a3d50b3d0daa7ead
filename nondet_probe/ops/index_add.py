"""`torch.index_add` in variants from no guarantee to correctly rounded.

    >>> import torch
    >>> index_add(torch.zeros(3), 0, torch.tensor([2, 0, 2]), torch.tensor([1.0, 2.0, 3.0]))
    tensor([2., 0., 4.])

What each variant promises: `registry.variants("index_add")`, docs/ops/scatter.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops import backends
from nondet_probe.ops.define import define
from nondet_probe.ops.registry import find
from nondet_probe.ops.scatter import (
    add_rows,
    axis,
    check_index_dtype,
    check_pair,
    contiguous_clone,
    register_variants,
    rows_ref,
)
from nondet_probe.ops.via import via

__all__ = ["index_add", "index_add_ref"]

register_variants("index_add")


def index_add(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    *,
    alpha: float = 1,
    variant: str = "ordered",
    threads: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """A new tensor: input with alpha * source[..., i, ...] added at index[i] along dim, for all i.

    input: tensor on cpu, or on cuda for Triton, of float64, float32, bfloat16 or float16; source:
    of the same dtype and, but for dim, shape; index: 1-D, int32 or int64, one number for each place
    of source along dim, in [0, input.shape[dim]).
    alpha: source * alpha is computed first, in the dtype.
    variant: "ordered" (the default: the bits of torch on one thread while the index has no more
        than 65,536 numbers, and faster than torch), "exact", "fixed_point" or "atomic".
    threads: the most to use; None is torch.get_num_threads(). backend: "cpu" or "triton" (which has
        "fixed_point" and "atomic"); None is by the tensor's device. docs/triton.md.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, UsageError for shapes that do not fit, threads below 1 and a backend that
    cannot be used, IndexError naming the first index out of range.
    """
    find("index_add", variant)
    if backend is not None or (isinstance(input, Tensor) and input.is_cuda):
        kernels = backends.kernels(
            "index_add", variant, backend, input, index, source, threads=threads
        )
        if kernels is not None:
            dim = _check(input, dim, index, source, variant)
            if alpha != 1:
                source = source * alpha
            return kernels.index_add(input, dim, index, source, variant)  # type: ignore[no-any-return]
    result: Tensor = _index_add(input, dim, index, source, alpha, variant, threads)
    return result


def index_add_ref(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """What variant "exact" must give, by fractions and integers alone. Slow."""
    dim = axis("index_add", dim, input.dim())
    x, y = (t.reshape(t.shape or (1,)).movedim(dim, 0) for t in (input, source * alpha))
    columns = x.shape[1:].numel()
    rows = x.reshape(x.shape[0], columns)
    out = rows_ref(rows, index.reshape(-1), y.reshape(index.numel(), columns))
    return out.reshape(x.shape).movedim(0, dim).reshape(input.shape)


def _check(input: Tensor, dim: int, index: Tensor, source: Tensor, variant: str) -> int:
    check_pair("index_add", variant, input, source, "source")
    check_index_dtype("index_add", index, (torch.int64, torch.int32))
    dim = axis("index_add", dim, input.dim())
    if input.dim() == index.dim() == 1 and source.shape == index.shape:
        return dim
    if index.dim() > 1:
        raise UsageError(f"index_add takes a 1-D index, got shape {tuple(index.shape)}")
    expected = list(input.shape)
    if expected:
        expected[dim] = index.numel()
    if list(source.shape) != expected:
        raise UsageError(
            f"index_add: source must have shape {tuple(expected)} for input of shape "
            f"{tuple(input.shape)}, dim {dim} and {index.numel()} indices; got "
            f"{tuple(source.shape)}"
        )
    return dim


def _add(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    alpha: float,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    dim = _check(input, dim, index, source, variant)
    out = contiguous_clone(input)
    if alpha != 1:
        source = source * alpha
    if input.dim() <= 1:
        return add_rows(out, out.numel(), index, source, variant, threads)
    before = math.prod(input.shape[:dim])
    size = input.shape[dim]
    columns = math.prod(input.shape[dim + 1 :])
    if before != 1:
        # Rows of `before` tables, one below the other.
        index = via(index).checked_indices(index, size, "index_add")
        index = (torch.arange(before, device=index.device).unsqueeze(1) * size + index).reshape(-1)
    # The bits are the same along any dimension.
    strict = before * columns != 1
    return add_rows(out, before * size, index, source, variant, threads, strict=strict)


def _without_data(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    alpha: float,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    _check(input, dim, index, source, variant)
    return input.new_empty(input.shape)


def _keep_index(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.dim, index, _, ctx.alpha, *_ = inputs
    ctx.save_for_backward(index)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    of_source = None
    if ctx.needs_input_grad[3]:
        of_source = gradient.index_select(ctx.dim, index.reshape(-1))
        if gradient.dim() == 0:
            of_source = of_source.reshape(())
        if ctx.alpha != 1:
            of_source = of_source * ctx.alpha
    return gradient, None, None, of_source, None, None, None


_index_add = define(
    "index_add",
    "(Tensor input, int dim, Tensor index, Tensor source, float alpha, str variant, "
    "int? threads=None) -> Tensor",
    kernel=_add,
    fake=_without_data,
    setup_context=_keep_index,
    backward=_backward,
    cuda=True,
)
