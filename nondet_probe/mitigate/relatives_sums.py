"""Sums, means, variances, norms and running sums of ATen, answered by ops of this library.

Each function takes the variant, the overload as it was, and ATen's arguments. It gives ATen's
result, or NotImplemented for what the op does not take; so do the errors with which ops refuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nondet_probe import ops

__all__ = [
    "cumsum",
    "dot",
    "over_dims",
    "std",
    "std_mean",
    "var",
    "var_mean",
    "vector_norm",
    "whole",
]

_SHORT = (torch.bfloat16, torch.float16)


def whole(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """Of `ops.sum` or `ops.mean`: over all elements."""

    def call(variant: str, original: Any, x: Tensor, *, dtype: Any = None) -> Any:
        return NotImplemented if dtype not in (None, x.dtype) else function(x, variant=variant)

    return call


def over_dims(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """The same over dimensions."""

    def call(
        variant: str,
        original: Any,
        x: Tensor,
        dim: Any = None,
        keepdim: bool = False,
        *,
        dtype: Any = None,
    ) -> Any:
        if dtype not in (None, x.dtype):
            return NotImplemented
        return function(x, _dims(dim), keepdim, variant=variant)

    return call


def dot(variant: str, original: Any, a: Tensor, b: Tensor) -> Any:
    return ops.dot(a, b, variant=variant)


def cumsum(variant: str, original: Any, x: Tensor, dim: int, *, dtype: Any = None) -> Any:
    if dtype not in (None, x.dtype):
        return NotImplemented
    return ops.cumsum(x, dim, variant=variant)


def var_mean(
    variant: str,
    original: Any,
    x: Tensor,
    dim: Any = None,
    *,
    correction: Any = None,
    keepdim: bool = False,
) -> Any:
    correction = 1 if correction is None else correction
    if correction != int(correction):
        return NotImplemented
    return ops.var_mean(x, _dims(dim), correction=int(correction), keepdim=keepdim, variant=variant)


def var(variant: str, original: Any, *args: Any, **kwargs: Any) -> Any:
    found = var_mean(variant, original, *args, **kwargs)
    return found if found is NotImplemented else found[0]


def std_mean(variant: str, original: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    # In 16 bits the variance would be rounded before its root is taken.
    if x.dtype in _SHORT:
        return NotImplemented
    found = var_mean(variant, original, x, *args, **kwargs)
    return found if found is NotImplemented else (found[0].sqrt_(), found[1])


def std(variant: str, original: Any, *args: Any, **kwargs: Any) -> Any:
    found = std_mean(variant, original, *args, **kwargs)
    return found if found is NotImplemented else found[0]


def vector_norm(
    variant: str,
    original: Any,
    x: Tensor,
    ord: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Any:
    """The l2 norm of all elements; others are not taken."""
    all_of_them = _dims(dim) is None or len({d % x.dim() for d in dim}) == x.dim()
    if ord != 2 or not all_of_them or dtype not in (None, x.dtype):
        return NotImplemented
    found = ops.norm(x, variant=variant)
    return found.reshape([1] * x.dim()) if keepdim else found


def _dims(dim: Any) -> Any:
    """For ATen no dimension is every dimension."""
    return dim if dim or dim == 0 else None
