"""Calls of the overloads that go to other overloads on a GPU, for tests on either device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

aten = torch.ops.aten


def drawn(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.rand(shape, generator=draw, dtype=torch.float64) * 8 - 4


def whole(*shape: int) -> Tensor:
    """Numbers whose sums, halves and quarters are exact in any order."""
    return (drawn(*shape) * 16).round()


def numbers(below: int, *shape: int) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(below))


def shares(*shape: int) -> Tensor:
    return drawn(*shape) / 8 + 0.5


Given = tuple[Any, ...]
Make = Callable[[Callable[..., Tensor]], Given]
# Overload: its arguments, with the tensors of numbers made by what is handed over; a list of them.
CASES: dict[str, list[Make]] = {
    "upsample_linear1d_backward": [
        lambda x: (x(2, 3, 14), [14], [2, 3, 7], False, 2.0),
        lambda x: (x(2, 3, 5), [5], [2, 3, 9], True),
    ],
    "upsample_bilinear2d_backward": [
        lambda x: (x(2, 3, 10, 14), [10, 14], [2, 3, 5, 7], False, 2.0, 2.0),
        lambda x: (x(2, 3, 9, 13), [9, 13], [2, 3, 5, 7], True, None, None),
        lambda x: (x(2, 3, 4, 5), [4, 5], [2, 3, 16, 10], False, 0.25),
        lambda x: (x(2, 3, 5, 5), [5, 5], [2, 3, 5, 5], False, None, None),
        lambda x: (x(2, 3, 64, 3), [64, 3], [2, 3, 1, 4], False, None, None),
        lambda x: (
            x(2, 3, 10, 14).contiguous(memory_format=torch.channels_last),
            [10, 14], [2, 3, 5, 7], False, None, None,
        ),
    ],
    "upsample_trilinear3d_backward": [
        lambda x: (x(2, 3, 4, 8, 6), [4, 8, 6], [2, 3, 2, 4, 3], False, None, None, None),
    ],
    "upsample_bicubic2d_backward": [
        lambda x: (x(2, 3, 10, 14), [10, 14], [2, 3, 5, 7], False, None, None),
        lambda x: (x(2, 3, 9, 5), [9, 5], [2, 3, 5, 9], True, None, None),
    ],
    "_upsample_bilinear2d_aa_backward": [
        lambda x: (x(2, 3, 4, 5), [4, 5], [2, 3, 16, 10], False, None, None),
        lambda x: (x(2, 3, 9, 14), [9, 14], [2, 3, 5, 7], True, None, None),
    ],
    "_upsample_bicubic2d_aa_backward": [
        lambda x: (x(2, 3, 4, 5), [4, 5], [2, 3, 16, 10], False, None, None),
    ],
    "reflection_pad1d_backward": [lambda x: (x(2, 3, 12), x(2, 3, 5), [3, 4])],
    "reflection_pad2d_backward": [
        lambda x: (x(2, 3, 12, 10), x(2, 3, 5, 7), [1, 2, 3, 4]),
        lambda x: (x(3, 4, 8), x(3, 5, 7), [-1, 2, 0, -1]),
    ],
    "reflection_pad3d_backward": [
        lambda x: (x(2, 3, 7, 9, 4), x(2, 3, 5, 6, 3), [1, 0, 1, 2, 2, 0])
    ],
    "replication_pad1d_backward": [lambda x: (x(2, 3, 12), x(2, 3, 5), [3, 4])],
    "replication_pad2d_backward": [
        lambda x: (x(2, 3, 12, 10), x(2, 3, 5, 7), [1, 2, 3, 4]),
        lambda x: (x(3, 4, 8), x(3, 5, 7), [-1, 2, 0, -1]),
    ],
    "replication_pad3d_backward": [
        lambda x: (x(2, 3, 7, 9, 4), x(2, 3, 5, 6, 3), [1, 0, 1, 2, 2, 0])
    ],
    "_adaptive_avg_pool2d_backward": [
        lambda x: (x(2, 3, 4, 2), x(2, 3, 8, 8)),
        lambda x: (x(3, 3, 5), x(3, 7, 4)),
    ],
    "_adaptive_avg_pool3d_backward": [lambda x: (x(2, 3, 4, 2, 1), x(2, 3, 8, 8, 4))],
    "avg_pool3d_backward": [
        lambda x: (
            x(2, 3, 4, 4, 3), x(2, 3, 8, 8, 6), [4, 2, 2], [2, 2, 2], [1, 0, 0], False, True, None
        ),
        lambda x: (x(2, 3, 4, 4, 3), x(2, 3, 7, 8, 5), [2], [], [0], True, True, None),
        lambda x: (x(2, 3, 4, 4, 3), x(2, 3, 7, 8, 6), [3], [2], [1], False, False, None),
        lambda x: (x(2, 3, 4, 4, 3), x(2, 3, 7, 8, 6), [3], [2], [1], False, False, 8),
    ],
    "cumsum": [lambda x: (x(5, 33, 3), 1), lambda x: (x(1000), -1), lambda x: (x(0, 3), 0)],
    "cumsum_": [lambda x: (x(5, 33, 3), 1)],
    "adaptive_max_pool2d_backward": [
        lambda x: (x(2, 3, 4, 5), y := x(2, 3, 6, 7), aten.adaptive_max_pool2d(y, [4, 5])[1])
    ],
    "adaptive_max_pool3d_backward": [
        lambda x: (x(2, 3, 4, 2), y := x(2, 6, 7, 5), aten.adaptive_max_pool3d(y, [3, 4, 2])[1])
    ],
    "fractional_max_pool2d_backward": [
        lambda x: (
            x(2, 3, 4, 5), y := x(2, 3, 9, 9), [2, 2], [4, 5],
            aten.fractional_max_pool2d(y, [2, 2], [4, 5], shares(2, 3, 2).to(y.dtype))[1],
        )
    ],
    "fractional_max_pool3d_backward": [
        lambda x: (
            x(2, 3, 4, 5, 4), y := x(2, 3, 9, 9, 9), [2, 2, 2], [4, 5, 4],
            aten.fractional_max_pool3d(y, [2] * 3, [4, 5, 4], shares(2, 3, 3).to(y.dtype))[1],
        )
    ],
    "max_pool3d_with_indices_backward": [
        lambda x: (
            x(2, 3, 4, 4, 3), y := x(2, 3, 7, 7, 5), [3] * 3, [2] * 3, [1] * 3, [1] * 3, False,
            functional.max_pool3d(y, 3, 2, 1, return_indices=True)[1],
        )
    ],
    "max_unpool2d": [
        lambda x: (*functional.max_pool2d(x(2, 3, 8, 6), 2, return_indices=True), [8, 6])
    ],
    "max_unpool3d": [
        lambda x: (
            *functional.max_pool3d(x(2, 3, 8, 6, 4), 2, return_indices=True),
            [8, 6, 4], [2] * 3, [0] * 3,
        )
    ],
    "put_": [
        lambda x: (x(5, 6), numbers(30, 4, 20) - 30, x(80), True),
        lambda x: (x(6, 5).t(), torch.arange(20), x(20)),
    ],
    "_embedding_bag_dense_backward": [
        lambda x: (x(4, 6), *bag(x(9, 6)), 9, False, 2, None),
    ],
    "bincount": [lambda x: (numbers(9, 50), x(50), 12), lambda x: (numbers(9, 50), x(50))],
    "histc": [
        lambda x: (x(40, 25) + 0.0625, 7, -3, 11),
        lambda x: (x(999), 16),
        lambda x: (torch.full_like(x(7), 3), 4),
    ],
    "nll_loss2d_forward": [
        lambda x: (x(2, 5, 4, 8), numbers(5, 2, 4, 8), None, 2, 1),
        lambda x: (x(2, 5, 4, 8), numbers(5, 2, 4, 8), None, 1, -100),
        lambda x: (x(2, 5, 4, 8), numbers(5, 2, 4, 8), x(5).abs() + 1, 2, 3),
        lambda x: (x(2, 5, 4, 8), numbers(5, 2, 4, 8), x(5).abs() + 1, 1, 3),
    ],
    "kthvalue": [lambda x: (x(7, 9, 5), 3, 1, True), lambda x: (x(77), 70)],
    "median.dim": [lambda x: (x(7, 9, 5), 1, True), lambda x: (spoiled(x(8, 40)), -1)],
    "nanmedian.dim": [lambda x: (x(7, 9, 5), 1, True), lambda x: (spoiled(x(8, 40)), -1)],
    "grid_sampler_2d_backward": [
        lambda x, m=mode, p=padding, a=align: (
            x(2, 3, 4, 5), x(2, 3, 6, 7), x(2, 4, 5, 2) / 3, m, p, a, [True, True]
        )
        for mode in (0, 1) for padding in (0, 1, 2) for align in (False, True)
    ],
    "grid_sampler_3d_backward": [
        lambda x, p=padding: (
            x(2, 3, 4, 5, 2), x(2, 3, 6, 7, 3), x(2, 4, 5, 2, 3) / 3, 0, p, False, [True, True]
        )
        for padding in (0, 1, 2)
    ],
}  # fmt: skip


def bag(weight: Tensor) -> Given:
    """Indices, the bag of each, the sizes and the largest of bags of maxima; one is empty."""
    offsets = torch.tensor([0, 5, 5, 9])
    return (found := numbers(9, 20), *torch._embedding_bag(weight, found, offsets, mode=2)[1:])


def spoiled(x: Tensor) -> Tensor:
    x[0, 3] = x[0, 20] = x[4] = torch.nan
    return x


def as_dtype(make: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    return lambda *shape: make(*shape).to(dtype)


def overload(name: str) -> Any:
    base, _, kind = name.partition(".")
    return getattr(getattr(aten, base), kind or "default")


def copied(given: Given) -> Given:
    return pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, given)
