"""Linear maps along one dimension, and their transposes with every sum in one fixed order.

The derivatives of interpolations, of paddings and of average pools add up what one input gave to
several outputs. On a GPU torch does so with atomics, in whatever order they come. Here every input
gathers from the outputs that it has touched, and these are added two by two: elementwise steps
alone, so that neither launch nor device decides about a bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Taps",
    "add_in_pairs",
    "cubic",
    "linear",
    "reflected",
    "replicated",
    "smooth_cubic",
    "smooth_linear",
    "transposed",
    "wide",
    "windows",
]

Numbers = NDArray[Any]
_A = -0.75  # of torch's cubic interpolation
_A_SMOOTH = -0.5  # and of its antialiased one


@dataclass(frozen=True)
class Taps:
    """A map from n inputs to as many outputs as there are rows: output o is the sum of
    weight[o, t] times input index[o, t]. Entries of weight 0 count for nothing."""

    n: int
    index: Numbers
    weight: Numbers

    def turned(self) -> tuple[Numbers, Numbers]:
        """index and weight of the transpose, a row for each input; the outputs of an input
        ascend."""
        outputs, _ = np.nonzero(self.weight)
        inputs, weights = self.index[self.weight != 0], self.weight[self.weight != 0]
        order = np.argsort(inputs, kind="stable")
        inputs, outputs, weights = inputs[order], outputs[order], weights[order]
        counts = np.bincount(inputs, minlength=self.n)
        place = np.arange(len(inputs)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = (self.n, int(counts.max(initial=1)))
        index, weight = np.zeros(shape, np.int64), np.zeros(shape, self.weight.dtype)
        index[inputs, place], weight[inputs, place] = outputs, weights
        return index, weight


def wide(dtype: torch.dtype) -> torch.dtype:
    """What is computed in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def transposed(gradient: Tensor, dim: int, taps: Taps) -> Tensor:
    """The gradient of the inputs along `dim`, given that of the outputs; in the dtype of `wide`."""
    index, weight, absent = _tables(taps, gradient.device, wide(gradient.dtype))
    shape = list(gradient.shape)
    shape[dim : dim + 1] = index.shape
    terms = gradient.to(weight.dtype).index_select(dim, index.reshape(-1)).reshape(shape)
    after = [1] * (gradient.dim() - dim - 1)
    # A product with 0 would spread the infinities of an output that has nothing to do with it.
    terms.mul_(weight.reshape([*weight.shape, *after]))
    terms.masked_fill_(absent.reshape([*absent.shape, *after]), 0)
    return add_in_pairs(terms, dim + 1)


def add_in_pairs(terms: Tensor, dim: int) -> Tensor:
    """The sums over a dimension, the second half added to the first until one is left; `terms` is
    written to."""
    while terms.shape[dim] > 1:
        size = terms.shape[dim]
        half = (size + 1) // 2
        terms.narrow(dim, 0, size - half).add_(terms.narrow(dim, half, size - half))
        terms = terms.narrow(dim, 0, half)
    return terms.squeeze(dim)


_KEPT = 256
# The maps below are cached: the same numbers are the same object, which is kept here as well.
_ON_DEVICE: dict[tuple[int, torch.device, torch.dtype], tuple[Taps, Tensor, Tensor, Tensor]] = {}


def _tables(taps: Taps, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs of each input, their weights, and whether there is none in a place."""
    key = id(taps), device, dtype
    found = _ON_DEVICE.get(key)
    if found is None:
        if len(_ON_DEVICE) >= _KEPT:
            _ON_DEVICE.clear()
        index, weight = taps.turned()
        absent = torch.from_numpy(weight == 0)
        found = (
            taps,
            torch.from_numpy(index).to(device),
            # No kernel on the way: another stream may use the copy at once.
            torch.from_numpy(weight).to(dtype).to(device),
            absent.to(device),
        )
        _ON_DEVICE[key] = found
    return found[1:]


def _float(double: bool) -> type[np.floating[Any]]:
    return np.float64 if double else np.float32


def _places(n: int, outputs: int, align: bool, scale: float | None, double: bool) -> Numbers:
    """Where an output lies among the inputs, in the dtype torch computes it in."""
    kind = _float(double)
    o: Numbers = np.arange(outputs, dtype=kind)
    if align:
        whole: Numbers = o * (kind(n - 1) / kind(outputs - 1) if outputs > 1 else kind(0))
        return whole
    step = kind(1 / scale) if scale is not None and scale > 0 else kind(n) / kind(outputs)
    at: Numbers = step * (o + kind(0.5)) - kind(0.5)
    return at


@lru_cache(maxsize=_KEPT)
def linear(n: int, outputs: int, align: bool, scale: float | None, double: bool) -> Taps:
    """Linear interpolation of n points, as torch's linear, bilinear and trilinear in each
    dimension."""
    at = np.maximum(_places(n, outputs, align, scale, double), 0)
    low = np.minimum(at.astype(np.int64), n - 1)
    share = np.clip(at - low, 0, 1).astype(at.dtype)
    return Taps(n, np.stack([low, np.minimum(low + 1, n - 1)], 1), np.stack([1 - share, share], 1))


@lru_cache(maxsize=_KEPT)
def cubic(n: int, outputs: int, align: bool, scale: float | None, double: bool) -> Taps:
    """Cubic convolution, as torch's bicubic in each dimension."""
    at = _places(n, outputs, align, scale, double)
    low = np.floor(at).astype(np.int64)
    share = (at - low).astype(at.dtype)
    index = np.clip(low[:, None] + np.arange(-1, 3), 0, n - 1)
    distance = np.stack([share + 1, share, 1 - share, 2 - share], 1)
    return Taps(n, index, _cubic(distance, _A).astype(at.dtype))


def _cubic(distance: Numbers, a: float) -> Numbers:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _smooth(
    n: int, outputs: int, align: bool, scale: float | None, double: bool, cubic: bool
) -> Taps:
    """Antialiased: the kernel is as wide as the inputs that an output stands for."""
    kind = _float(double)
    if align:
        step = kind(n - 1) / kind(outputs - 1) if outputs > 1 else kind(0)
    else:
        step = kind(1 / scale) if scale is not None and scale > 0 else kind(n) / kind(outputs)
    reach = kind(2 if cubic else 1) * max(step, kind(1))
    centre = step * (np.arange(outputs, dtype=kind) + kind(0.5))
    first = np.maximum((centre - reach + kind(0.5)).astype(np.int64), 0)
    last = np.minimum((centre + reach + kind(0.5)).astype(np.int64), n)
    offset = np.arange(int((last - first).max(initial=1)))
    index = first[:, None] + offset
    distance = np.abs(index - centre[:, None] + kind(0.5)) / max(step, kind(1))
    weight = _cubic(distance, _A_SMOOTH) if cubic else np.maximum(1 - distance, 0)
    weight = np.where(index < last[:, None], weight, 0).astype(kind)
    total = weight.sum(1, keepdims=True)
    return Taps(n, np.minimum(index, n - 1), weight / np.where(total == 0, 1, total).astype(kind))


@lru_cache(maxsize=_KEPT)
def smooth_linear(n: int, outputs: int, align: bool, scale: float | None, double: bool) -> Taps:
    """torch's antialiased bilinear interpolation in each dimension."""
    return _smooth(n, outputs, align, scale, double, cubic=False)


@lru_cache(maxsize=_KEPT)
def smooth_cubic(n: int, outputs: int, align: bool, scale: float | None, double: bool) -> Taps:
    """torch's antialiased bicubic interpolation in each dimension."""
    return _smooth(n, outputs, align, scale, double, cubic=True)


def _one_each(n: int, index: Numbers) -> Taps:
    # What negative padding cuts off is not there.
    return Taps(n, index[:, None], np.ones((len(index), 1), np.float32))


@lru_cache(maxsize=_KEPT)
def replicated(n: int, before: int, after: int) -> Taps:
    """The ends repeated."""
    return _one_each(n, np.clip(np.arange(-before, n + after), 0, n - 1))


@lru_cache(maxsize=_KEPT)
def reflected(n: int, before: int, after: int) -> Taps:
    """Mirrored at the first and the last input, which stand once."""
    at = np.abs(np.arange(-before, n + after))
    return _one_each(n, np.where(at >= n, 2 * (n - 1) - at, at))


@lru_cache(maxsize=_KEPT)
def windows(n: int, first: tuple[int, ...], last: tuple[int, ...]) -> Taps:
    """Output o is the sum of the inputs first[o]..last[o]-1."""
    begin, end = np.array(first, np.int64), np.array(last, np.int64)
    index = begin[:, None] + np.arange(int((end - begin).max(initial=1)))
    weight = (index < end[:, None]).astype(np.float32)
    return Taps(n, np.clip(index, 0, n - 1), weight)
