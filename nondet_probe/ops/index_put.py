"""Advanced indexing whose backward is known: `index_put`, always accumulating, and `index`.

    >>> import torch
    >>> index_put(torch.zeros(3), (torch.tensor([2, 0, -1]),), torch.tensor([1.0, 2.0, 3.0]))
    tensor([2., 0., 4.])

`index(x, indices)` is `x[indices]`; its gradient is an index_put, in torch by atomic additions from
two threads up, here by the variant asked for. What each promises: docs/ops/scatter.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops.checks import check_dtype, check_memory
from nondet_probe.ops.define import define
from nondet_probe.ops.registry import find
from nondet_probe.ops.scatter import (
    add_rows,
    check_index_dtype,
    check_pair,
    contiguous_clone,
    register_variants,
    rows_ref,
)
from nondet_probe.ops.via import via

__all__ = ["index", "index_put", "index_put_ref"]

register_variants("index_put")
register_variants("index")

Indices = Sequence[Tensor | None]


def index_put(
    input: Tensor,
    indices: Indices,
    values: Tensor,
    *,
    variant: str = "ordered",
    threads: int | None = None,
) -> Tensor:
    """A new tensor: input with values added at input[indices], as
    `input.index_put(indices, values, accumulate=True)`.

    input: CPU tensor of float64, float32, bfloat16 or float16; values: of the same dtype, of a
    shape that broadcasts to that of input[indices].
    indices: for each of the first dimensions a tensor or None, which stands for all of it; int64,
        int32 (negative ones count from the end) or bool, a mask over as many dimensions as it has.
    variant: "ordered" (the default: additions in the row-major order of the indices, and faster
        than torch), "exact", "fixed_point" or "atomic".
    threads: the most to use; None is torch.get_num_threads().

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, UsageError for shapes that do not fit and threads below 1, IndexError naming the
    first index out of range.
    """
    find("index_put", variant)
    result: Tensor = _index_put(input, _list("index_put", indices), values, variant, threads)
    return result


def index(
    input: Tensor, indices: Indices, *, variant: str = "ordered", threads: int | None = None
) -> Tensor:
    """input[indices], whose gradient for input is `index_put` of zeros by this variant.

    input, indices, variant, threads and errors as in `index_put`. The forward pass only copies.
    """
    find("index", variant)
    result: Tensor = _index(input, _list("index", indices), variant, threads)
    return result


def index_put_ref(input: Tensor, indices: Indices, values: Tensor) -> Tensor:
    """What variant "exact" must give, by fractions and integers alone. Slow."""
    places = torch.arange(input.numel()).reshape(input.shape)[tuple(_slices(indices))]
    spread = values.expand(places.shape).reshape(-1, 1)
    return rows_ref(input.reshape(-1, 1), places.reshape(-1), spread).reshape(input.shape)


def _slices(indices: Indices) -> list[Tensor | slice]:
    return [slice(None) if i is None else i for i in indices]


def _list(op: str, indices: Indices | Tensor) -> list[Tensor | None]:
    if isinstance(indices, Tensor):
        raise TypeError(f"{op} takes a tuple of indices; pass (index,)")
    return list(indices)


class _Rows(NamedTuple):
    """Where the values of an index_put go: the rows [indexed dimensions] of a table whose columns
    are the other dimensions, in their order."""

    places: Tensor  # of the row; negative where the only index has such, see wrap
    shape: torch.Size  # of the indices, broadcast together
    indexed: list[int]  # dimensions of input
    others: list[int]
    first: int  # dimension of the result where those of the indices stand
    wrap: bool


def _check(op: str, input: Tensor, indices: Indices) -> None:
    used = 0
    given = False
    for one in indices:
        used += 1
        if one is not None:
            given = True
            check_index_dtype(op, one, (torch.int64, torch.int32, torch.bool))
            if one.dtype is torch.bool:
                if one.dim() == 0:
                    raise UsageError(f"{op} takes masks of at least one dimension")
                used += one.dim() - 1
    if not given:
        raise UsageError(f"{op} takes at least one index that is a tensor")
    if used > input.dim():
        raise IndexError(
            f"{op}: {used} dimensions are indexed, but input of shape {tuple(input.shape)} has "
            f"{input.dim()}"
        )


def _by_dimension(op: str, input: Tensor, indices: Indices) -> dict[int, Tensor]:
    """The integer index of every dimension that has one; masks become those of their trues."""
    found: dict[int, Tensor] = {}
    dim = 0
    for one in indices:
        if one is None:
            dim += 1
        elif one.dtype is torch.bool:
            if one.shape != input.shape[dim : dim + one.dim()]:
                raise IndexError(
                    f"{op}: a mask of shape {tuple(one.shape)} does not fit the dimensions from "
                    f"{dim} on of input of shape {tuple(input.shape)}"
                )
            for place in one.nonzero(as_tuple=True):
                found[dim] = place
                dim += 1
        else:
            found[dim] = one
            dim += 1
    return found


def _rows(op: str, input: Tensor, indices: Indices) -> _Rows:
    if len(indices) == 1:
        one = indices[0]
        if one is not None and one.dtype is not torch.bool:
            return _Rows(one, one.shape, [0], list(range(1, input.dim())), 0, True)
    by_dimension = _by_dimension(op, input, indices)
    indexed = list(by_dimension)
    others = [d for d in range(input.dim()) if d not in by_dimension]
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    first = indexed[0] if together else 0
    if len(indexed) == 1:
        one = by_dimension[indexed[0]]
        return _Rows(one, one.shape, indexed, others, first, True)
    for one in by_dimension.values():
        check_memory(one)
    shapes = [tuple(one.shape) for one in by_dimension.values()]
    try:
        shape = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    except RuntimeError:
        told = ", ".join(map(str, shapes))
        raise IndexError(f"{op}: indices of shapes {told} do not broadcast together") from None
    row = torch.zeros(shape, dtype=torch.int64, device=input.device)
    for d, one in by_dimension.items():
        row = row * input.shape[d] + via(one).checked_indices(one, input.shape[d], op, wrap=True)
    return _Rows(row, row.shape, indexed, others, first, False)


def _put(
    input: Tensor,
    indices: Indices,
    values: Tensor,
    variant: str,
    threads: int | None,
) -> Tensor:
    check_pair("index_put", variant, input, values, "values")
    _check("index_put", input, indices)
    rows = _rows("index_put", input, indices)
    sizes = [input.shape[d] for d in rows.others]
    shape = [*sizes[: rows.first], *rows.shape, *sizes[rows.first :]]
    if list(values.shape) != shape:
        try:
            values = values.expand(shape)
        except RuntimeError:
            raise UsageError(
                f"index_put: values of shape {tuple(values.shape)} do not broadcast to "
                f"{tuple(shape)}, the shape of input[indices]"
            ) from None
    in_place = rows.indexed == list(range(len(rows.indexed)))
    if in_place:
        table = out = contiguous_clone(input)
    else:
        check_memory(input)
        table = input.permute(rows.indexed + rows.others).contiguous()
        if table.data_ptr() == input.data_ptr():
            table = table.clone()
        moved = list(range(rows.first, rows.first + len(rows.shape)))
        values = values.movedim(moved, list(range(len(rows.shape))))
    count = math.prod([input.shape[d] for d in rows.indexed])
    add_rows(table, count, rows.places, values, variant, threads, wrap=rows.wrap)
    if not in_place:
        out = input.new_empty(input.shape)
        out.permute(rows.indexed + rows.others).copy_(table)
    return out


def _put_without_data(
    input: Tensor,
    indices: Indices,
    values: Tensor,
    variant: str,
    threads: int | None,
) -> Tensor:
    check_pair("index_put", variant, input, values, "values")
    _check("index_put", input, indices)
    return input.new_empty(input.shape)


def _keep_indices(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, indices, *rest = inputs
    ctx.given = [i is not None for i in indices]
    ctx.input_shape = input.shape
    ctx.values_shape = rest[0].shape if isinstance(rest[0], Tensor) else None
    ctx.how = rest[-2:]
    ctx.save_for_backward(*(i for i in indices if i is not None))


def _indices(ctx: Any) -> list[Tensor | None]:
    saved = iter(ctx.saved_tensors)
    return [next(saved) if given else None for given in ctx.given]


def _no_gradients(ctx: Any) -> list[None] | None:
    # torch looks into a list of tensors, and takes one with a None in it as a whole.
    return [None] * len(ctx.given) if all(ctx.given) else None


def _put_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    of_values = None
    indices = _indices(ctx)
    if ctx.needs_input_grad[2]:
        of_values = _index(gradient, indices, *ctx.how)
        if of_values.shape != ctx.values_shape:
            of_values = of_values.sum_to_size(ctx.values_shape)
    return gradient, _no_gradients(ctx), of_values, None, None


def _take(input: Tensor, indices: Indices, variant: str, threads: int | None) -> Tensor:
    check_dtype("index", variant, input)
    _check("index", input, indices)
    result: Tensor = torch.ops.aten.index.Tensor(input, indices)
    return result


def _index_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    indices = _indices(ctx)
    zeros = gradient.new_zeros(ctx.input_shape)
    of_input = _index_put(zeros, indices, gradient, *ctx.how)
    return of_input, _no_gradients(ctx), None, None


# No default for threads: the dispatcher drops an argument that is at its default, and torch's
# autograd of lists then counts one too few.
_index_put = define(
    "index_put",
    "(Tensor input, Tensor?[] indices, Tensor values, str variant, int? threads) -> Tensor",
    kernel=_put,
    fake=_put_without_data,
    setup_context=_keep_indices,
    backward=_put_backward,
    cuda=True,
)
_index = define(
    "index",
    "(Tensor input, Tensor?[] indices, str variant, int? threads) -> Tensor",
    kernel=_take,
    fake=_take,
    setup_context=_keep_indices,
    backward=_index_backward,
    cuda=True,
)
