"""cross_entropy in Triton."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from nondet_probe.bits.device import not_captured
from nondet_probe.kernels.cross_entropy import entropy_backward_rows, entropy_rows, finish_loss
from nondet_probe.ops.via_triton.launch import (
    CHUNK,
    ROWS,
    ceil_div,
    fold,
    launch,
    levels,
    sum_of_rows,
    wide,
)

__all__ = ["cross_entropy"]

_REDUCTIONS = ("none", "mean", "sum")


@triton_op("nondet_probe::cross_entropy_triton", mutates_args=())
def _loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    smoothing: float,
    variant: str,
) -> tuple[Tensor, Tensor, Tensor]:
    x, target = x.contiguous(), target.contiguous()
    rows, columns = target.numel(), x.shape[-1]
    losses = x.new_empty(rows, dtype=wide(x.dtype))
    of_rows = torch.empty_like(losses)
    statistics = x.new_empty((2, rows), dtype=wide(x.dtype))
    if rows:
        launch(
            wrap_triton(entropy_rows), (ceil_div(rows, ROWS),),
            x, target, x if weight is None else weight.contiguous(), losses, of_rows, statistics,
            rows, columns, ignore_index,
            KEPT=1 - smoothing, SHARE=smoothing / max(columns, 1), WEIGHT=weight is not None,
            SMOOTH=smoothing != 0, ROWS=ROWS, LEVELS=levels(ceil_div(columns, CHUNK)),
        )  # fmt: skip
    if weight is None or not rows:
        weights = (target != ignore_index).sum().double()
    else:
        weights = sum_of_rows(of_rows, variant).double().view(())
    if reduction == 0:
        result = fold(losses.view(1, rows), x.dtype) if rows else x.new_empty(0)
        return result.view(target.shape), statistics, weights
    total = sum_of_rows(losses, variant) if rows else losses.new_zeros(1)
    result = x.new_empty(())
    launch(wrap_triton(finish_loss), (1,), total, weights, result, MEAN=reduction == 1, num_warps=1)
    return result, statistics, weights


@triton_op("nondet_probe::cross_entropy_backward_triton", mutates_args=())
def _loss_backward(
    gradient: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    smoothing: float,
    statistics: Tensor,
    weights: Tensor,
) -> Tensor:
    x, target, gradient = x.contiguous(), target.contiguous(), gradient.contiguous()
    rows, columns = target.numel(), x.shape[-1]
    dx = torch.empty_like(x)
    if weight is not None and smoothing != 0:
        whole = sum_of_rows(weight.to(wide(x.dtype)), "fixed_order")
    else:
        whole = x.new_full((1,), columns, dtype=wide(x.dtype))
    if rows and columns:
        launch(
            wrap_triton(entropy_backward_rows), (ceil_div(rows, ROWS),),
            gradient, x, target, x if weight is None else weight.contiguous(), whole, statistics,
            weights, dx, rows, columns, ignore_index,
            KEPT=1 - smoothing, SHARE=smoothing / columns, WEIGHT=weight is not None,
            SMOOTH=smoothing != 0, REDUCTION=_REDUCTIONS[reduction], ROWS=ROWS,
        )  # fmt: skip
    return dx


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, target, weight, *ctx.options, _variant = inputs
    _, statistics, weights = output
    ctx.save_for_backward(x, target, weight, statistics, weights)
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, gradient: Tensor | None, *rest: Tensor | None
) -> tuple[Tensor | None, ...]:
    dx = None
    if gradient is not None:
        x, target, weight, statistics, weights = ctx.saved_tensors
        dx = _loss_backward(gradient, x, target, weight, *ctx.options, statistics, weights)
    return dx, None, None, None, None, None, None


_loss.register_autograd(_gradients, setup_context=_keep)


def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    smoothing: float,
    variant: str,
) -> Tensor:
    """The loss over the last dimension of x. IndexError for a target that is no class; in a graph,
    where nobody looks, such a row's loss is NaN."""
    if not torch.compiler.is_compiling():
        not_captured("cross_entropy", x)
        classes = x.shape[-1]
        bad = (target != ignore_index) & ((target < 0) | (target >= classes))
        if bad.any():
            place = int(bad.reshape(-1).nonzero()[0])
            raise IndexError(
                f"target {int(target.reshape(-1)[place])} at position {place} is not one of the "
                f"{classes} classes"
            )
    result: Tensor = _loss(x, target, weight, ignore_index, reduction, smoothing, variant)[0]
    return result
