"""Overloads of ATen made of others that have one order: of scatter_add, scatter, index_put,
bincount, sort. Those go their own ways and are counted there. Functions as in remade_maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe.mitigate.relatives_losses import MEAN, NONE
from nondet_probe.mitigate.taps import wide

__all__ = [
    "bag_of_maxima",
    "bincount",
    "cumsum",
    "histc",
    "kthvalue",
    "max_pool",
    "median",
    "nanmedian",
    "nll_loss2d",
    "put",
    "unpool",
]

Original = Callable[..., Any]
_MAXIMA = 2  # ATen's number for a bag of maxima


def max_pool(rank: int) -> Callable[..., Any]:
    """The derivatives of pools over so many dimensions whose last argument is the place of each
    maximum, counted through these dimensions."""

    def call(original: Original, gradient: Tensor, x: Tensor, *rest: Any) -> Any:
        places: Tensor = rest[-1]
        if places.shape != gradient.shape or not gradient.numel():
            return NotImplemented
        table = gradient.new_zeros([*x.shape[:-rank], math.prod(x.shape[-rank:])])
        found = table.scatter_add(-1, places.flatten(-rank), gradient.flatten(-rank))
        return found.reshape(x.shape)

    return call


def unpool(
    original: Original, x: Tensor, places: Tensor, output_size: Sequence[int], *rest: Any
) -> Any:
    """max_unpool2d and max_unpool3d."""
    rank = len(output_size)
    if places.shape != x.shape or places.dtype is not torch.int64 or not x.numel():
        return NotImplemented
    table = x.new_zeros([*x.shape[:-rank], math.prod(output_size)])
    found = table.scatter(-1, places.flatten(-rank), x.flatten(-rank))
    return found.reshape([*x.shape[:-rank], *output_size])


def put(
    original: Original, x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False
) -> Any:
    """put_."""
    if index.numel() != source.numel() or index.dtype is not torch.int64:
        return NotImplemented
    where, values = (index.reshape(-1),), source.reshape(-1)
    if x.is_contiguous():
        x.view(-1).index_put_(where, values, accumulate)
        return x
    return x.copy_(x.reshape(-1).index_put(where, values, accumulate).reshape(x.shape))


def bag_of_maxima(
    original: Original,
    gradient: Tensor,
    indices: Tensor,
    bag_of: Tensor,
    sizes: Tensor,
    maxima: Tensor,
    rows: int,
    scaled: bool,
    mode: int,
    *rest: Any,
) -> Any:
    """_embedding_bag_dense_backward of the largest of each bag."""
    if mode != _MAXIMA:
        return NotImplemented
    table = gradient.new_zeros([rows, gradient.shape[1]])
    # An empty bag has no largest: -1 or 0.
    given = gradient.masked_fill((maxima < 0) | (sizes == 0)[:, None], 0)
    return table.scatter_add(0, maxima.clamp(min=0).long(), given)


def bincount(
    original: Original, x: Tensor, weights: Tensor | None = None, minlength: int = 0
) -> Any:
    """With weights."""
    if weights is None or x.dim() != 1 or weights.shape != x.shape or not x.numel():
        return NotImplemented
    low, high = (int(bound) for bound in torch.aminmax(x))
    if low < 0:
        return NotImplemented
    dtype = torch.float32 if weights.dtype is torch.float32 else torch.float64
    table = torch.zeros(max(minlength, high + 1), dtype=dtype, device=x.device)
    return table.index_add_(0, x.long(), weights.to(dtype))


def histc(original: Original, x: Tensor, bins: int = 100, min: Any = 0, max: Any = 0) -> Any:
    """Of floating-point numbers: their bins as torch's kernel for GPUs computes them, counted as
    whole numbers."""
    low, high = float(min), float(max)
    if not x.is_floating_point() or not x.numel() or bins < 1 or low > high:
        return NotImplemented
    if low == high:
        low, high = (float(bound) for bound in torch.aminmax(x))
    if low == high:
        low, high = low - 1, high + 1
    if not (math.isfinite(low) and math.isfinite(high)):
        return NotImplemented
    x, dtype = x.reshape(-1).to(wide(x.dtype)), x.dtype
    inside = (x >= low) & (x <= high)
    place = ((x.masked_fill(~inside, low) - low) * bins / (high - low)).long().clamp(max=bins - 1)
    counts = torch.bincount(place.masked_fill(~inside, bins), minlength=bins + 1)
    return counts[:bins].to(dtype)


def nll_loss2d(
    original: Original,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
) -> Any:
    """nll_loss2d_forward: the loss and the weight of the targets that count."""
    if reduction == NONE or x.dim() != 4 or target.dtype is not torch.int64:
        return NotImplemented
    if target.shape != (x.shape[0], *x.shape[2:]) or not target.numel():
        return NotImplemented
    ignored = target == ignore_index
    classes = target.masked_fill(ignored, 0)
    losses = -x.gather(1, classes[:, None]).squeeze(1).to(wide(x.dtype))
    if weight is None:
        total = (~ignored).sum().to(losses.dtype)
    else:
        scale = weight.to(losses.dtype)[classes].masked_fill(ignored, 0)
        total, losses = scale.sum(), losses * scale
    loss = losses.masked_fill(ignored, 0).sum()
    if reduction == MEAN:
        loss = loss / total
    return loss.to(x.dtype), total.to(x.dtype)


def cumsum(original: Original, x: Tensor, dim: int, *, dtype: Any = None) -> Any:
    """Running sums by doubling steps: elementwise, and in an order of the length alone."""
    kind = dtype or x.dtype
    if not x.dim() or not (kind.is_floating_point or kind.is_complex):
        return NotImplemented
    y, step = x.to(kind).to(wide(kind)), 1
    size = y.shape[dim]
    while step < size:
        moved = y.narrow(dim, step, size - step) + y.narrow(dim, 0, size - step)
        y = torch.cat([y.narrow(dim, 0, step), moved], dim)
        step *= 2
    return y.to(kind, memory_format=torch.contiguous_format, copy=True)


def kthvalue(original: Original, x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """Of equal ones the same every time: by their order in the row."""
    if not x.dim() or not x.numel() or not 1 <= k <= x.shape[dim]:
        return NotImplemented
    values, places = torch.sort(x, stable=True, dim=dim)
    return _at(values, places, torch.full_like(places.narrow(dim, 0, 1), k - 1), dim, keepdim)


def median(original: Original, x: Tensor, dim: int, keepdim: bool = False) -> Any:
    """median.dim: the lower one, or the first NaN."""
    if not x.dim() or not x.numel():
        return NotImplemented
    values, places = torch.sort(x, stable=True, dim=dim)
    nans, size = values.isnan().sum(dim, keepdim=True), x.shape[dim]
    # NaNs are sorted behind all numbers.
    middle = torch.where(nans > 0, size - nans, (size - 1) // 2)
    return _at(values, places, middle, dim, keepdim)


def nanmedian(original: Original, x: Tensor, dim: int, keepdim: bool = False) -> Any:
    """nanmedian.dim: the same of those that are numbers."""
    if not x.dim() or not x.numel():
        return NotImplemented
    values, places = torch.sort(x, stable=True, dim=dim)
    nans = values.isnan().sum(dim, keepdim=True)
    middle = ((x.shape[dim] - 1 - nans).clamp(min=0) / 2).long()
    return _at(values, places, middle, dim, keepdim)


def _at(
    values: Tensor, places: Tensor, where: Tensor, dim: int, keepdim: bool
) -> tuple[Tensor, Tensor]:
    found = values.gather(dim, where), places.gather(dim, where)
    return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))
