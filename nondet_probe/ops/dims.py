"""Dimensions to reduce over, checked, and tensors brought into rows of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nondet_probe.errors import UsageError

__all__ = ["as_rows", "checked_dims", "listed", "result_shape", "row_by_row"]


def listed(dim: int | Sequence[int] | None) -> list[int]:
    """Dimensions as an operator takes them, not checked; none stand for all."""
    return [] if dim is None else [dim] if isinstance(dim, int) else list(dim)


def checked_dims(dim: int | Sequence[int] | None, ndim: int) -> list[int]:
    """The dimensions as numbers from 0, ascending; None and no dimensions are all of them.

    IndexError names one that the tensor does not have, UsageError one that is there twice.
    """
    given = listed(dim)
    if len(given) == 1 and -ndim <= given[0] < ndim:
        return [given[0] % ndim]
    if not given:
        return list(range(ndim))
    dims: list[int] = []
    reach = max(ndim, 1)  # a number takes dim 0 and -1, as in torch
    for one in given:
        if not -reach <= one < reach:
            raise IndexError(f"dim {one} is out of range for a tensor of {ndim} dimensions")
        if one % reach in dims:
            raise UsageError(f"dim {one} is given twice in dim={tuple(given)}")
        dims.append(one % reach)
    return sorted(dims) if ndim else []


def result_shape(shape: Sequence[int], dims: Sequence[int], keepdim: bool) -> list[int]:
    """The shape without these dimensions, or with 1 in their places. dims: as from checked_dims."""
    left = list(shape)
    for dim in reversed(dims):
        if keepdim:
            left[dim] = 1
        else:
            del left[dim]
    return left


def as_rows(x: Tensor, dims: Sequence[int]) -> Tensor:
    """x, or where they are not the last ones a copy, with the reduced dimensions innermost and
    contiguous, so that what is reduced lies in a row, in row-major order."""
    count = x.dim()
    if len(dims) < count and list(dims) != [*range(count - len(dims), count)]:
        x = x.permute([dim for dim in range(count) if dim not in dims] + list(dims))
    return x.contiguous()


def row_by_row(
    x: Tensor,
    dim: int | Sequence[int] | None,
    keepdim: bool,
    reduce: Callable[[Tensor], Tensor],
) -> Tensor:
    """`reduce`, from a vector to a 0-d tensor of x's dtype, of the elements of every result."""
    dims = checked_dims(dim, x.ndim)
    kept = [one for one in range(x.ndim) if one not in dims]
    ordered = x.detach().permute(*kept, *dims)
    count = ordered.shape[: len(kept)].numel()
    rows = ordered.reshape(count, ordered.shape[len(kept) :].numel())
    results = [reduce(row) for row in rows]
    shape = result_shape(x.shape, dims, keepdim)
    whole = torch.stack(results) if results else x.new_empty(0, device="cpu")
    return whole.reshape(shape)
