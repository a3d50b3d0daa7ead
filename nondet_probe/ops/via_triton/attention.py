"""attention in Triton."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from nondet_probe.kernels.attention import attention_backward, attention_rows, gradient_along
from nondet_probe.ops.via_triton.launch import ceil_div, check_grid, fold, launch

__all__ = ["attention"]

_BUFFERS = 8
"""Gradients of the queries that `split_buffers` keeps at most."""


def _sides(x: Tensor) -> tuple[int, int]:
    """Queries or keys of a block, and the padded head dimension: by dtype and that alone."""
    return (32 if x.dtype is torch.float32 else 64), max(16, 1 << (x.shape[-1] - 1).bit_length())


@triton_op("nondet_probe::attention_triton", mutates_args=())
def _attention(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, variant: str
) -> tuple[Tensor, Tensor]:
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    heads, queries, d = query.shape
    keys = key.shape[1]
    check_grid("attention", variant, heads)
    out = torch.empty_like(query)
    logs = query.new_empty((heads, queries), dtype=torch.float32)
    side, padded = _sides(query)
    if out.numel():
        launch(
            wrap_triton(attention_rows), (ceil_div(queries, side), heads),
            query, key, value, out, logs, queries, keys, scale,
            CAUSAL=causal, D=d, BLOCK_M=side, BLOCK_N=side, BLOCK_D=padded,
        )  # fmt: skip
    return out, logs


@triton_op("nondet_probe::attention_backward_triton", mutates_args=())
def _attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logs: Tensor,
    causal: bool,
    scale: float,
    variant: str,
) -> tuple[Tensor, Tensor, Tensor]:
    gradient, out = gradient.contiguous(), out.contiguous()
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    heads, queries, d = query.shape
    keys = key.shape[1]
    dk, dv = torch.zeros_like(key), torch.zeros_like(value)
    if not out.numel():
        return torch.zeros_like(query), dk, dv
    side, padded = _sides(query)
    along = torch.empty_like(logs)
    launch(
        wrap_triton(gradient_along), (ceil_div(heads * queries, side),),
        gradient, out, along, heads * queries, D=d, BLOCK_M=side, BLOCK_D=padded,
    )  # fmt: skip
    key_blocks = ceil_div(keys, side)
    blocks = ceil_div(key_blocks, _BUFFERS) if variant == "split_buffers" else 1
    programs = ceil_div(key_blocks, blocks)
    buffers = programs if variant == "split_buffers" else 1
    dq = query.new_zeros((buffers, query.numel()), dtype=torch.float32)
    turns = torch.zeros(heads * ceil_div(queries, side), dtype=torch.int32, device=query.device)
    launch(
        wrap_triton(attention_backward), (programs, heads),
        query, key, value, gradient, logs, along, dq, dk, dv, turns, queries, keys, scale, blocks,
        VARIANT=variant, CAUSAL=causal, D=d, BLOCK_M=side, BLOCK_N=side, BLOCK_D=padded,
    )  # fmt: skip
    return fold(dq, query.dtype, in_order=True).view(query.shape), dk, dv


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, *ctx.options = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 6
    found = _attention_backward(gradient, *ctx.saved_tensors, *ctx.options)
    return (*found, None, None, None)


_attention.register_autograd(_gradients, setup_context=_keep)


def attention(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float, variant: str
) -> Tensor:
    """softmax(query @ key^T * scale) @ value for (heads, length, D)."""
    result: Tensor = _attention(query, key, value, causal, scale, variant)[0]
    return result
