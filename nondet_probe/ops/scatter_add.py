"""`torch.scatter_add` in variants from no guarantee to correctly rounded.

    >>> import torch
    >>> scatter_add(torch.zeros(3), 0, torch.tensor([2, 0, 2]), torch.tensor([1.0, 2.0, 3.0]))
    tensor([2., 0., 4.])

What each variant promises: `registry.variants("scatter_add")`, docs/ops/scatter.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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

__all__ = ["scatter_add", "scatter_add_ref"]

register_variants("scatter_add")


def scatter_add(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor,
    *,
    variant: str = "ordered",
    threads: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """A new tensor: input with every src[i, j, ...] added at the place [i, j, ...] whose coordinate
    along dim is replaced by index[i, j, ...].

    input: tensor on cpu, or on cuda for Triton, of float64, float32, bfloat16 or float16; src: of
    the same dtype; index: int64 or int32, of no more than src's size in any dimension and of no
    more than input's in any but dim; its numbers in [0, input.shape[dim]).
    variant: "ordered" (the default: the bits of torch on one thread while the index has no more
        than 65,536 numbers, and faster than torch), "exact", "fixed_point" or "atomic".
    threads: the most to use; None is torch.get_num_threads(). backend: "cpu" or "triton" (which has
        "fixed_point" and "atomic"); None is by the tensor's device. docs/triton.md.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, UsageError for shapes that do not fit, threads below 1 and a backend that
    cannot be used, IndexError naming the first index out of range.
    """
    find("scatter_add", variant)
    if backend is not None or (isinstance(input, Tensor) and input.is_cuda):
        kernels = backends.kernels(
            "scatter_add", variant, backend, input, index, src, threads=threads
        )
        if kernels is not None:
            dim = _check(input, dim, index, src, variant)
            return kernels.scatter_add(input, dim, index, src, variant)  # type: ignore[no-any-return]
    result: Tensor = _scatter_add(input, dim, index, src, variant, threads)
    return result


def scatter_add_ref(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """What variant "exact" must give, by fractions and integers alone. Slow."""
    dim = axis("scatter_add", dim, input.dim())
    part = src[tuple(slice(size) for size in index.shape)]
    cells = _cells(input.shape, dim, index).reshape(-1)
    return rows_ref(input.reshape(-1, 1), cells, part.reshape(-1, 1)).reshape(input.shape)


def _check(input: Tensor, dim: int, index: Tensor, src: Tensor, variant: str) -> int:
    check_pair("scatter_add", variant, input, src, "src")
    check_index_dtype("scatter_add", index, (torch.int64, torch.int32))
    dim = axis("scatter_add", dim, input.dim())
    shape = index.shape
    if len(shape) == input.dim() == 1 and shape == src.shape:
        return dim
    same_dims = len(shape) == input.dim() == src.dim()
    if not same_dims or not _lies_within(shape, src.shape, input.shape, dim):
        raise UsageError(
            f"scatter_add: index must be no larger than src in any dimension and, but for dim "
            f"{dim}, than input; got index of shape {tuple(shape)}, src {tuple(src.shape)}, input "
            f"{tuple(input.shape)}"
        )
    return dim


def _lies_within(
    shape: Sequence[int], source: Sequence[int], table: Sequence[int], dim: int
) -> bool:
    for d, size in enumerate(shape):
        if size > source[d] or (d != dim and size > table[d]):
            return False
    return True


def _cells(shape: torch.Size, dim: int, index: Tensor) -> Tensor:
    """Where each element goes in a contiguous tensor of this shape."""
    base = torch.zeros((), dtype=torch.int64, device=index.device)
    for d, size in enumerate(index.shape):
        if d != dim:
            steps = torch.arange(size, device=index.device) * math.prod(shape[d + 1 :])
            base = base + steps.reshape([-1 if k == d else 1 for k in range(index.dim())])
    return torch.add(base, index, alpha=math.prod(shape[dim + 1 :]))


def _is_of_rows(input: Tensor, dim: int, index: Tensor) -> bool:
    """Whether whole rows of a table go to the same place: an index expanded over the columns."""
    return (
        dim == 0
        and index.shape[1:] == input.shape[1:]
        and all(
            stride == 0 or size == 1
            for stride, size in zip(index.stride()[1:], index.shape[1:], strict=True)
        )
    )


def _add(
    input: Tensor, dim: int, index: Tensor, src: Tensor, variant: str, threads: int | None = None
) -> Tensor:
    dim = _check(input, dim, index, src, variant)
    out = contiguous_clone(input)
    if src.numel() != index.numel():  # which is no larger in any dimension
        src = src[tuple(slice(size) for size in index.shape)]
    if input.dim() <= 1:
        add_rows(out, out.numel(), index, src, variant, threads)
    elif index.numel() == 0 or out.numel() == 0:
        via(index).checked_indices(index, input.shape[dim], "scatter_add")
    elif _is_of_rows(input, dim, index):
        row = index.flatten(1)[:, 0]
        add_rows(out, out.shape[0], row, src, variant, threads)
    else:
        size = input.shape[dim]
        several = out.numel() != size  # the bits are then those of whole rows
        if (
            index.shape[:dim] == input.shape[:dim]
            and index.shape[dim + 1 :] == input.shape[dim + 1 :]
        ):
            inner = math.prod(input.shape[dim + 1 :])
            grid = (size, inner, index.shape[dim] * inner)
            n = out.numel()
            add_rows(out, n, index, src, variant, threads, strict=several, grid=grid)
        else:
            index = via(index).checked_indices(index, size, "scatter_add")
            cells = _cells(input.shape, dim, index).reshape(-1)
            add_rows(out, out.numel(), cells, src, variant, threads, strict=several)
    return out


def _without_data(
    input: Tensor, dim: int, index: Tensor, src: Tensor, variant: str, threads: int | None = None
) -> Tensor:
    _check(input, dim, index, src, variant)
    return input.new_empty(input.shape)


def _keep_index(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.dim, index, src, *_ = inputs
    ctx.shape = src.shape
    ctx.save_for_backward(index)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    of_src = None
    if ctx.needs_input_grad[3]:
        of_src = gradient.gather(ctx.dim, index.long())
        if of_src.shape != ctx.shape:
            # What was left out of src has no influence.
            places = zip(reversed(ctx.shape), reversed(of_src.shape), strict=True)
            padding = [n for full, used in places for n in (0, full - used)]
            of_src = torch.nn.functional.pad(of_src, padding)
    return gradient, None, None, of_src, None, None


_scatter_add = define(
    "scatter_add",
    "(Tensor input, int dim, Tensor index, Tensor src, str variant, int? threads=None) -> Tensor",
    kernel=_add,
    fake=_without_data,
    setup_context=_keep_index,
    backward=_backward,
    cuda=True,
)
