"""Which dimensions are reduced, and the tensor brought into rows of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["as_rows", "reduced_dims", "reduced_shape"]


def reduced_dims(op: str, x: Tensor, dim: int | Sequence[int] | None) -> list[int]:
    """The dimensions asked for, ascending and from 0; all of them for None and for none named.

    IndexError for one that x does not have, ValueError for one named twice.
    """
    count = x.dim()
    if dim is None:
        return list(range(count))
    asked = [dim] if isinstance(dim, int) else list(dim)
    found = set()
    for position, one in enumerate(asked):
        if not -max(count, 1) <= one < max(count, 1):
            raise IndexError(
                f"{op}: dim {one} (at position {position} of those given) is out of range for a "
                f"tensor of {count} dimensions"
            )
        if one % max(count, 1) in found:
            raise ValueError(f"{op}: dim {one} appears twice in {asked}")
        found.add(one % max(count, 1))
    return sorted(found)[:count] if found else list(range(count))


def reduced_shape(x: Tensor, dims: Sequence[int], keepdim: bool) -> list[int]:
    """The shape of a reduction over these dimensions."""
    kept = [1 if dim in dims else size for dim, size in enumerate(x.shape)]
    return kept if keepdim else [size for dim, size in enumerate(kept) if dim not in dims]


def as_rows(x: Tensor, dims: Sequence[int]) -> Tensor:
    """x, or where they are not the last ones a copy, with the reduced dimensions innermost and
    contiguous, so that what is reduced lies in a row, in row-major order."""
    count = x.dim()
    if list(dims) != list(range(count - len(dims), count)):
        x = x.permute([dim for dim in range(count) if dim not in dims] + list(dims))
    return x.contiguous()
