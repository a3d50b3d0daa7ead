"""Scattered sums of ATen, counts and histograms, answered by ops of this library.

Functions as in relatives_sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe import ops

__all__ = [
    "bincount",
    "embedding_dense_backward",
    "histogram",
    "in_place",
    "index_add",
    "index_put",
    "scatter_add",
]


def index_put(
    variant: str,
    original: Any,
    x: Tensor,
    indices: Any,
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> Any:
    if not accumulate:
        return NotImplemented
    return ops.index_put(x, indices, values, variant=variant)


def index_add(
    variant: str,
    original: Any,
    x: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    *,
    alpha: Any = 1,
) -> Any:
    return ops.index_add(x, dim, index, source, alpha=alpha, variant=variant)


def scatter_add(
    variant: str, original: Any, x: Tensor, dim: int, index: Tensor, src: Tensor
) -> Any:
    return ops.scatter_add(x, dim, index, src, variant=variant)


def in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, written to the first operand."""

    def call(variant: str, original: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        result = function(variant, original, x, *args, **kwargs)
        return result if result is NotImplemented else x.copy_(result)

    return call


def embedding_dense_backward(
    variant: str,
    original: Any,
    gradient: Tensor,
    indices: Tensor,
    rows: int,
    padding: int,
    scale_by_frequency: bool,
) -> Any:
    if scale_by_frequency:  # the sum would be rounded before it is divided
        return NotImplemented
    op = torch.ops.nondet_probe.embedding_backward.default
    return op(gradient, indices, rows, padding, False, variant)


def bincount(
    variant: str, original: Any, x: Tensor, weights: Tensor | None = None, minlength: int = 0
) -> Any:
    return ops.bincount(x, weights, minlength, variant=variant)


def histogram(
    variant: str,
    original: Any,
    x: Tensor,
    bins: int,
    *,
    range: Any = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    if not x.numel():
        return NotImplemented
    low, high = map(float, torch.aminmax(x)) if range is None else range
    # torch's own, so that every element falls into the same bin.
    edges = original(x.new_empty(0), bins, range=[low, high])[1]
    op = torch.ops.nondet_probe.histogram.default
    return op(x, edges, True, weight, density, variant), edges
