"""softmax and log_softmax in Triton."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from nondet_probe.kernels.softmax import softmax_backward_rows, softmax_rows
from nondet_probe.ops.via_triton.launch import CHUNK, ROWS, ceil_div, launch, levels, rows_of

__all__ = ["softmax"]


@triton_op("nondet_probe::softmax_triton", mutates_args=())
def _softmax(x: Tensor, log: bool) -> Tensor:
    x = x.contiguous()
    columns = x.shape[-1] if x.dim() else 1
    rows = rows_of(x, columns)
    y = torch.empty_like(x)
    if rows:
        launch(
            wrap_triton(softmax_rows), (ceil_div(rows, ROWS),), x, y, rows, columns,
            LOG=log, ROWS=ROWS, LEVELS=levels(ceil_div(columns, CHUNK)),
        )  # fmt: skip
    return y


@triton_op("nondet_probe::softmax_backward_triton", mutates_args=())
def _softmax_backward(gradient: Tensor, y: Tensor, log: bool) -> Tensor:
    gradient, y = gradient.contiguous(), y.contiguous()
    columns = y.shape[-1] if y.dim() else 1
    rows = rows_of(y, columns)
    dx = torch.empty_like(y)
    if rows:
        launch(
            wrap_triton(softmax_backward_rows), (ceil_div(rows, ROWS),),
            gradient, y, dx, rows, columns,
            LOG=log, ROWS=ROWS, LEVELS=levels(ceil_div(columns, CHUNK)),
        )  # fmt: skip
    return dx


def _keep(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
    ctx.log = inputs[1]
    ctx.save_for_backward(output)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _softmax_backward(gradient, ctx.saved_tensors[0], ctx.log), None


_softmax.register_autograd(_gradients, setup_context=_keep)


def softmax(x: Tensor, log: bool) -> Tensor:
    """softmax, or log_softmax, over the last dimension."""
    result: Tensor = _softmax(x, log)
    return result
