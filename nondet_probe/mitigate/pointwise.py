"""Elementwise overloads in pieces that depend on the number of elements alone.

A thread's share of a tensor ends with a few elements that fill no vector and take another way
through the mathematics; where the shares end depends on the number of threads. Here each piece is
one share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.torch_private import below_autograd
from nondet_probe.mitigate.via_c import each_on_one_thread, on_one_thread

__all__ = ["pointwise"]

PIECES = 8
PIECE = 1 << 14
"""Elements that are worth a piece of their own."""


def pointwise(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """original(*args, **kwargs) in pieces, or on one thread where the operands cannot be cut."""
    tensors = [x for x in args if isinstance(x, Tensor) and x.dim()]
    size = tensors[0].numel() if tensors else 0
    pieces = min(PIECES, size // PIECE)
    if pieces < 2 or kwargs.get("out") is not None or not _alike(tensors):
        return on_one_thread(original, *args, **kwargs)
    flat = {id(x): x.as_strided((size,), (1,)) for x in tensors}
    bounds = [size * piece // pieces // 128 * 128 for piece in range(pieces)] + [size]
    found: list[Any] = [None] * pieces

    def one(piece: int) -> None:
        low, high = bounds[piece], bounds[piece + 1]
        with below_autograd():
            found[piece] = original(
                *(flat[id(x)][low:high] if id(x) in flat else x for x in args), **kwargs
            )

    each_on_one_thread(pieces, one)
    return torch.cat(found).as_strided(tensors[0].shape, tensors[0].stride())


def _alike(tensors: list[Tensor]) -> bool:
    """Whether element i in memory is the same element of all, and there is nothing in between."""
    first = tensors[0]
    dense = first.is_contiguous() or (
        first.dim() == 4 and first.is_contiguous(memory_format=torch.channels_last)
    )
    return dense and all(
        x.shape == first.shape and x.stride() == first.stride() for x in tensors[1:]
    )
