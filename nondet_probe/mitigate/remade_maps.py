"""Derivatives of interpolations, paddings and average pools of ATen, in one fixed order (taps.py).

Each function takes the overload as it was and ATen's arguments, and gives ATen's result, or
NotImplemented for what it does not take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nondet_probe.mitigate.taps import Taps, reflected, replicated, transposed, wide, windows

__all__ = ["adaptive_average", "average", "interpolation", "reflection", "replication"]

Original = Callable[..., Any]


def _in_each_dimension(gradient: Tensor, maps: Sequence[Taps], like: Tensor | None) -> Tensor:
    """`maps` are of the last dimensions, in their order; layout as in _laid_out."""
    result, dtype = gradient, gradient.dtype
    for back, taps in enumerate(reversed(maps), 1):
        result = transposed(result, gradient.dim() - back, taps)
    return _laid_out(result.to(dtype), like)


def _laid_out(x: Tensor, like: Tensor | None) -> Tensor:
    """In row-major order, or channels last where `like` is."""
    if like is not None and not like.is_contiguous():
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(like.dim())
        if layout is not None and like.is_contiguous(memory_format=layout):
            return x.contiguous(memory_format=layout)
    return x.contiguous()


def interpolation(
    taps: Callable[[int, int, bool, float | None, bool], Taps], *, keeps_layout: bool = True
) -> Callable[..., Any]:
    """Of upsample_*_backward, with the map of one dimension: linear, cubic, ...

    keeps_layout: whether torch's result is laid out as the gradient, else in row-major order.
    """

    def call(
        original: Original,
        gradient: Tensor,
        output_size: Sequence[int],
        input_size: Sequence[int],
        align: bool,
        *scales: float | None,
    ) -> Any:
        sizes, rank = list(input_size[2:]), len(output_size)
        if list(gradient.shape) != [*input_size[:2], *output_size] or not gradient.numel():
            return NotImplemented
        if sizes == list(output_size):  # whatever the scales are
            return _laid_out(gradient.clone(), gradient if keeps_layout else None)
        double = gradient.dtype is torch.float64
        # The dispatcher leaves out what is the default at the end.
        given = (*scales, *[None] * (rank - len(scales)))
        maps = [taps(*one, double) for one in _pairs(sizes, output_size, align, given)]
        return _in_each_dimension(gradient, maps, gradient if keeps_layout else None)

    return call


def _pairs(
    sizes: Sequence[int], outputs: Sequence[int], align: bool, scales: Sequence[float | None]
) -> list[tuple[int, int, bool, float | None]]:
    return [(n, out, align, s) for n, out, s in zip(sizes, outputs, scales, strict=True)]


def replication(original: Original, gradient: Tensor, x: Tensor, padding: Sequence[int]) -> Any:
    """replication_pad*_backward."""
    return _padding(replicated, gradient, x, padding)


def reflection(original: Original, gradient: Tensor, x: Tensor, padding: Sequence[int]) -> Any:
    """reflection_pad*_backward."""
    return _padding(reflected, gradient, x, padding)


def _padding(
    taps: Callable[[int, int, int], Taps], gradient: Tensor, x: Tensor, padding: Sequence[int]
) -> Any:
    rank = len(padding) // 2
    # From the last dimension on.
    pairs = [(padding[2 * k], padding[2 * k + 1]) for k in reversed(range(rank))]
    sizes = x.shape[-rank:]
    padded = [n + before + after for n, (before, after) in zip(sizes, pairs, strict=True)]
    if not gradient.numel() or list(gradient.shape) != [*x.shape[:-rank], *padded]:
        return NotImplemented
    if taps is reflected and any(max(pair) >= n for n, pair in zip(sizes, pairs, strict=True)):
        return NotImplemented
    maps = [taps(n, *pair) for n, pair in zip(sizes, pairs, strict=True)]
    return _in_each_dimension(gradient, maps, x)


Windows = tuple[tuple[int, ...], tuple[int, ...]]
"""The first inputs of the outputs, and those after the last."""


def adaptive_average(rank: int) -> Callable[..., Any]:
    """_adaptive_avg_pool*_backward over so many dimensions."""

    def call(original: Original, gradient: Tensor, x: Tensor) -> Any:
        if not gradient.numel() or gradient.dtype is not x.dtype:
            return NotImplemented
        pools = [
            (
                tuple(o * n // outputs for o in range(outputs)),
                tuple(-(-(o + 1) * n // outputs) for o in range(outputs)),
            )
            for n, outputs in zip(x.shape[-rank:], gradient.shape[-rank:], strict=True)
        ]
        return _pooled(gradient, x, pools, _divisors(pools))

    return call


def average(
    original: Original,
    gradient: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_padding: bool,
    divisor: int | None,
) -> Any:
    """avg_pool3d_backward."""
    if not gradient.numel() or gradient.dtype is not x.dtype:
        return NotImplemented
    # One number stands for all dimensions, no stride for the kernel.
    kernel, padding = list(kernel) * (3 // len(kernel)), list(padding) * (3 // len(padding))
    stride = list(stride) * (3 // len(stride)) if stride else kernel
    pools, padded = [], []
    for n, outputs, k, s, p in zip(
        x.shape[-3:], gradient.shape[-3:], kernel, stride, padding, strict=True
    ):
        first = [o * s - p for o in range(outputs)]
        last = [min(at + k, n + p) for at in first]
        padded.append((tuple(first), tuple(last)))
        pools.append((tuple(max(at, 0) for at in first), tuple(min(at, n) for at in last)))
    if divisor is not None:
        counts: tuple[tuple[int, ...], ...] = ((divisor,), (1,), (1,))
    else:
        counts = _divisors(padded if count_padding else pools)
    return _pooled(gradient, x, pools, counts)


def _divisors(pools: Sequence[Windows]) -> tuple[tuple[int, ...], ...]:
    """How many inputs the outputs have, along each dimension."""
    return tuple(tuple(e - b for b, e in zip(*pool, strict=True)) for pool in pools)


def _pooled(
    gradient: Tensor, x: Tensor, pools: Sequence[Windows], counts: tuple[tuple[int, ...], ...]
) -> Any:
    dtype = gradient.dtype
    share = gradient.to(wide(dtype)) / _product(counts, gradient.device, wide(dtype))
    maps = [windows(n, *pool) for n, pool in zip(x.shape[-len(pools) :], pools, strict=True)]
    return _in_each_dimension(share, maps, x).to(dtype)


@lru_cache(maxsize=64)
def _product(
    counts: tuple[tuple[int, ...], ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Of one count from each dimension; whole numbers, exact."""
    rank = len(counts)
    shaped = [
        torch.tensor(one, dtype=dtype).reshape([-1 if d == k else 1 for d in range(rank)])
        for k, one in enumerate(counts)
    ]
    return math.prod(shaped[1:], start=shaped[0]).to(device)
