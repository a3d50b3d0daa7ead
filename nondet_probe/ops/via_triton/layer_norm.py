"""layer_norm and rms_norm in Triton."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from nondet_probe.kernels.layer_norm import norm_backward_rows, norm_parameters, norm_rows
from nondet_probe.ops.via_triton.launch import (
    CHUNK,
    ROWS,
    ceil_div,
    fold,
    launch,
    launched_parts,
    levels,
    rows_of,
    wide,
)

__all__ = ["layer_norm"]

_CHUNK_OF_ROWS = 32
"""Rows that `fixed_order` adds in turn (docs/ops/layer_norm.md): this never changes."""
_BLOCK = 128


@triton_op("nondet_probe::layer_norm_triton", mutates_args=())
def _norm(
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    variant: str,
) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    rows = rows_of(x, columns)
    y = torch.empty_like(x)
    statistics = x.new_empty((2, rows), dtype=wide(x.dtype))
    if rows:
        launch(
            wrap_triton(norm_rows), (ceil_div(rows, ROWS),),
            x, x if weight is None else weight.contiguous(),
            x if bias is None else bias.contiguous(), y, statistics, rows, columns,
            EPS=eps, CENTRED=centred, WEIGHT=weight is not None, BIAS=bias is not None,
            ROWS=ROWS, LEVELS=levels(ceil_div(columns, CHUNK)),
        )  # fmt: skip
    return y, statistics


@triton_op("nondet_probe::layer_norm_backward_triton", mutates_args=())
def _norm_backward(
    gradient: Tensor,
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    statistics: Tensor,
    parameters: bool,
    centred: bool,
    variant: str,
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, x = gradient.contiguous(), x.contiguous()
    rows = rows_of(x, columns)
    dx = torch.empty_like(x)
    if not rows:
        zero = x.new_zeros(columns if parameters else 0)
        return dx, zero, zero.clone() if centred else x.new_empty(0)
    launch(
        wrap_triton(norm_backward_rows), (ceil_div(rows, ROWS),),
        gradient, x, x if weight is None else weight.contiguous(), statistics, dx, rows, columns,
        CENTRED=centred, WEIGHT=weight is not None,
        ROWS=ROWS, LEVELS=levels(ceil_div(columns, CHUNK)),
    )  # fmt: skip
    if not parameters:
        return dx, x.new_empty(0), x.new_empty(0)
    span = _CHUNK_OF_ROWS
    if variant == "two_pass":
        span = ceil_div(rows, launched_parts(x))
    chunks = ceil_div(rows, span)
    if variant == "atomic":
        gamma = x.new_zeros((1, columns), dtype=wide(x.dtype))
        beta = torch.zeros_like(gamma)
    else:
        gamma = x.new_empty((chunks, columns), dtype=wide(x.dtype))
        beta = torch.empty_like(gamma)
    launch(
        wrap_triton(norm_parameters), (chunks, ceil_div(columns, _BLOCK)),
        gradient, x, statistics, gamma, beta, rows, columns, span,
        VARIANT=variant, CENTRED=centred, BLOCK=_BLOCK,
    )  # fmt: skip
    return dx, fold(gamma, x.dtype), fold(beta, x.dtype) if centred else x.new_empty(0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.columns, weight, bias, _eps, ctx.centred, ctx.variant = inputs
    ctx.bias_shape = None if bias is None else bias.shape
    ctx.save_for_backward(x, weight, output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    dx = dgamma = dbeta = None
    if gradient is not None:
        x, weight, statistics = ctx.saved_tensors
        _, _, for_weight, for_bias, *_rest = ctx.needs_input_grad
        dx, dgamma, dbeta = _norm_backward(
            gradient, x, ctx.columns, weight, statistics, for_weight or for_bias, ctx.centred,
            ctx.variant,
        )  # fmt: skip
        dgamma = dgamma.view(weight.shape) if for_weight else None
        dbeta = dbeta.view(ctx.bias_shape) if for_bias else None
    return dx, None, dgamma, dbeta, None, None, None


_norm.register_autograd(_gradients, setup_context=_keep)


def layer_norm(
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    variant: str,
) -> Tensor:
    """layer_norm (centred) or rms_norm of rows of `columns` elements."""
    result: Tensor = _norm(x, columns, weight, bias, eps, centred, variant)[0]
    return result
