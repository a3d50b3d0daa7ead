"""The derivative of grid_sample, by rows: of the input's places for all channels at once, added by
index_add. Functions as in remade_maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from nondet_probe.mitigate.taps import wide

__all__ = ["cudnn_grid_sample", "grid_sample"]

_LINEAR, _NEAREST = 0, 1
_BORDER, _REFLECTION = 1, 2
"""ATen's numbers; padding 0 is zeros."""


def grid_sample(
    original: Callable[..., Any],
    gradient: Tensor,
    x: Tensor,
    grid: Tensor,
    mode: int,
    padding: int,
    align: bool,
    mask: Sequence[bool],
) -> Any:
    """grid_sampler_2d_backward and grid_sampler_3d_backward; not bicubic."""
    sizes, outputs = x.shape[2:], grid.shape[1:-1]
    fits = gradient.shape == (*x.shape[:2], *outputs) and x.shape[0] == grid.shape[0]
    if mode not in (_LINEAR, _NEAREST) or not fits or not gradient.numel() or not x.numel():
        return NotImplemented
    # [images * outputs, channels]
    rows = gradient.movedim(1, -1).reshape(-1, x.shape[1]).to(wide(x.dtype))
    places, slopes = [], []
    for dim, size in enumerate(sizes):
        # The last coordinate is that of the first dimension.
        at = grid[..., len(sizes) - 1 - dim].reshape(-1).to(rows.dtype)
        place, slope = _place(at, size, padding, align)
        places.append(place)
        slopes.append(slope)
    image = torch.arange(len(rows), device=x.device) // math.prod(outputs)
    if mode == _NEAREST:
        index, inside = _flat(image, [p.round().long() for p in places], sizes)
        dx = _added(x, index, rows.masked_fill(~inside[:, None], 0)) if mask[0] else None
        return dx, torch.zeros_like(grid, memory_format=torch.contiguous_format)
    low = [p.floor() for p in places]
    share = [p - q for p, q in zip(places, low, strict=True)]
    table = x.movedim(1, -1).reshape(-1, x.shape[1]).to(rows.dtype)
    indices, given = [], []
    tilts = [torch.zeros_like(share[0]) for _ in sizes]
    for corner in product((0, 1), repeat=len(sizes)):
        weights = [s if up else 1 - s for s, up in zip(share, corner, strict=True)]
        at_corner = [(q + up).long() for q, up in zip(low, corner, strict=True)]
        index, inside = _flat(image, at_corner, sizes)
        outside = ~inside
        if mask[0]:
            indices.append(index)
            given.append(
                (rows * math.prod(weights[1:], start=weights[0])[:, None]).masked_fill(
                    outside[:, None], 0
                )
            )
        met = (table.index_select(0, index) * rows).sum(1).masked_fill(outside, 0)
        for dim, up in enumerate(corner):
            others = [w for other, w in enumerate(weights) if other != dim]
            term = met * math.prod(others[1:], start=others[0])
            tilts[dim] = tilts[dim] + (term if up else -term)
    turned = [tilt * slope for tilt, slope in zip(tilts, slopes, strict=True)]
    dgrid = torch.stack(turned[::-1], 1).reshape(grid.shape).to(grid.dtype)
    dx = _added(x, torch.cat(indices), torch.cat(given)) if mask[0] else None
    return dx, dgrid


def cudnn_grid_sample(
    original: Callable[..., Any], x: Tensor, grid: Tensor, gradient: Tensor
) -> Any:
    """cudnn_grid_sampler_backward: linear, zeros around, corners aligned."""
    return grid_sample(original, gradient, x, grid, _LINEAR, 0, True, (True, True))


def _added(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """The rows added up at the places of x, as a tensor like it."""
    shape = [x.shape[0], *x.shape[2:], x.shape[1]]
    table = rows.new_zeros([math.prod(shape[:-1]), shape[-1]])
    found = table.index_add(0, index, rows).to(x.dtype)
    return found.reshape(shape).movedim(-1, 1).contiguous()


def _flat(image: Tensor, at: list[Tensor], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The row of a place, and whether it is one; 0 for those outside."""
    row, inside = image, torch.ones_like(image, dtype=torch.bool)
    for one, size in zip(at, sizes, strict=True):
        inside = inside & (one >= 0) & (one < size)
        row = row * size + one
    return row.masked_fill(~inside, 0), inside


def _place(at: Tensor, size: int, padding: int, align: bool) -> tuple[Tensor, Tensor]:
    """A coordinate between -1 and 1 as a place among `size`, and how fast it moves there."""
    slope = torch.full_like(at, (size - 1) / 2 if align else size / 2)
    place = (at + 1) / 2 * (size - 1) if align else ((at + 1) * size - 1) / 2
    if padding == _REFLECTION:
        first, span = (0.0, float(size - 1)) if align else (-0.5, float(size))
        if span == 0:
            return torch.zeros_like(at), torch.zeros_like(at)
        place = place - first
        slope = torch.where(place < 0, -slope, slope)
        place = place.abs()
        back = (place / span).floor() % 2 != 0
        rest = place.fmod(span)
        place = torch.where(back, span - rest, rest) + first
        slope = torch.where(back, -slope, slope)
    if padding in (_BORDER, _REFLECTION):
        slope = slope.masked_fill((place <= 0) | (place >= size - 1), 0)
        place = place.clamp(0, size - 1)
    # What is no number, or far outside, is outside.
    far = ~(place.abs() < 2**31 - 1)
    return place.masked_fill(far, -100), slope
