"""Losses of ATen: elements as torch makes them, added up by ops of this library.

The bits of the elements were not seen to depend on threads or on the place in a vector. Functions
as in relatives_sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe import ops

__all__ = [
    "cross_entropy_of_logits",
    "cross_entropy_of_two",
    "elementwise_loss",
    "nll_loss",
]

NONE, MEAN, SUM = range(3)
"""ATen's numbers for what is done with the losses of the elements."""


def elementwise_loss(
    variant: str, original: Any, x: Tensor, target: Tensor, reduction: int = MEAN, *rest: Any
) -> Any:
    """mse_loss, smooth_l1_loss and huber_loss; rest: what the loss itself is told."""
    return _added(variant, original(x, target, NONE, *rest), reduction)


def cross_entropy_of_two(
    variant: str,
    original: Any,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: int = MEAN,
) -> Any:
    """binary_cross_entropy."""
    return _added(variant, original(x, target, weight, NONE), reduction)


def cross_entropy_of_logits(
    variant: str,
    original: Any,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    of_ones: Tensor | None = None,
    reduction: int = MEAN,
) -> Any:
    """binary_cross_entropy_with_logits: made of overloads that are rerouted themselves."""
    return _added(variant, original(x, target, weight, of_ones, NONE), reduction)


def _added(variant: str, losses: Tensor, reduction: int) -> Any:
    if reduction == NONE:
        return losses
    add = ops.mean if reduction == MEAN else ops.sum
    return add(losses, variant=variant)


def nll_loss(
    variant: str,
    original: Any,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
) -> Any:
    """The loss and the number of targets that count; without weights."""
    if reduction == NONE or weight is not None or x.dim() != 2 or target.dtype is not torch.int64:
        return NotImplemented
    rows = (target != ignore_index).nonzero()
    classes = target[rows[:, 0]]
    if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < x.shape[1]:
        return NotImplemented
    losses = -x[rows[:, 0], classes]
    add = ops.mean if reduction == MEAN else ops.sum
    return add(losses, variant=variant), x.new_tensor(float(classes.numel()))
