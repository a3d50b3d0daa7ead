"""Softmax and the derivative of layer_norm of ATen, answered by ops of this library.

Functions as in relatives_sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe import ops

__all__ = ["layer_norm_backward", "softmax", "softmax_backward"]


def softmax(variant: str, original: Any, x: Tensor, dim: int, half_to_float: bool) -> Any:
    return NotImplemented if half_to_float or not _last(dim, x) else ops.softmax(x, -1)


def softmax_backward(
    variant: str, original: Any, gradient: Tensor, y: Tensor, dim: int, dtype: torch.dtype
) -> Any:
    if dtype is not y.dtype or gradient.dtype is not dtype or not _last(dim, y):
        return NotImplemented
    return torch.ops.nondet_probe.softmax_backward.default(gradient, y, False)


def _last(dim: int, x: Tensor) -> bool:
    """Rows of another dimension would be copied there and back, which costs more than threads
    save."""
    return x.dim() > 0 and dim in (-1, x.dim() - 1)


def layer_norm_backward(
    variant: str,
    original: Any,
    grad: Tensor,
    x: Tensor,
    shape: Sequence[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mask: Sequence[bool],
) -> Any:
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    if not x.numel() or any(
        parameter is not None and parameter.dtype is not x.dtype for parameter in (weight, bias)
    ):
        return NotImplemented
    statistics = torch.stack([mean.reshape(-1), rstd.reshape(-1)]).to(wide)
    dx, dgamma, dbeta = torch.ops.nondet_probe.layer_norm_backward.default(
        grad, x, math.prod(shape), weight, statistics, mask[1] or mask[2], True, variant
    )
    return (
        dx if mask[0] else None,
        dgamma.view(tuple(shape)) if mask[1] else None,
        dbeta.view(tuple(shape)) if mask[2] else None,
    )
