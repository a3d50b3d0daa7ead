"""Convolutions, forward and backward, over fixed slices of the batch, each on one thread.

oneDNN splits the batch between threads and adds the weight gradients of the parts, so their bits
depend on the number of threads. Here the parts are a function of the shapes, and the gradients are
added in the order of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe.env.torch_private import below_autograd
from nondet_probe.mitigate.via_c import each_on_one_thread, on_one_thread

__all__ = ["convolution", "convolution_backward", "slices_of"]

SLICES = 8
WORK = 4_000_000
"""Multiply-adds that are worth a slice of their own."""


def slices_of(images: int, multiply_adds: int) -> list[int]:
    """Where the slices of a batch begin and end; a function of the shapes alone."""
    parts = max(1, min(SLICES, images, multiply_adds // WORK))
    return [images * part // parts for part in range(parts + 1)]


def convolution(
    original: Callable[..., Any], x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any
) -> Tensor:
    """As aten::convolution; rest: stride, padding, dilation, transposed, output_padding, groups."""
    transposed = rest[3]
    # Each element of the map on one side meets weight[0]; without strides the other one would do.
    work = x.numel() * (weight[0] if transposed else weight[:, 0]).numel()
    bounds = slices_of(_images(x, weight), work)
    parts = len(bounds) - 1
    if parts < 2:
        return on_one_thread(original, x, weight, bias, *rest)  # type: ignore[no-any-return]
    found: list[Tensor] = [x] * parts

    def one(part: int) -> None:
        with below_autograd():
            found[part] = original(x[bounds[part] : bounds[part + 1]], weight, bias, *rest)

    each_on_one_thread(parts, one)
    return torch.cat(found)


def convolution_backward(
    original: Callable[..., Any],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    *rest: Any,
) -> tuple[Tensor | None, ...]:
    """As aten::convolution_backward: gradients of x, weight and bias, those that are asked for.

    rest: stride, padding, dilation, transposed, output_padding, groups, output_mask.
    """
    mask = rest[-1]
    work = (x if rest[3] else grad).numel() * weight[0].numel()
    bounds = slices_of(_images(x, weight), work)
    parts = len(bounds) - 1
    if parts < 2:
        return tuple(on_one_thread(original, grad, x, weight, bias_sizes, *rest))
    found: list[tuple[Tensor | None, ...]] = [()] * parts

    def one(part: int) -> None:
        images = slice(bounds[part], bounds[part + 1])
        with below_autograd():
            found[part] = original(grad[images], x[images], weight, bias_sizes, *rest)

    each_on_one_thread(parts, one)
    whole, *sums = zip(*found, strict=True)
    return (
        torch.cat(whole) if mask[0] else None,
        *(
            _in_order(list(terms)) if wanted else None
            for terms, wanted in zip(sums, mask[1:], strict=True)
        ),
    )


def _images(x: Tensor, weight: Tensor) -> int:
    return x.shape[0] if x.dim() == weight.dim() else 1


def _in_order(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total.add_(term)
    return total
