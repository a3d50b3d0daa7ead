"""matmul in Triton."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from nondet_probe.kernels.matmul import product_tiles
from nondet_probe.ops.matmul import folded, shape_of_product
from nondet_probe.ops.via_triton.launch import ceil_div, check_grid, fold, launch, wide

__all__ = ["matmul"]

_BLOCK_K = 256
"""Terms of a chain, and the most slices of K (docs/ops/matmul.md): these never change."""
_SLICES = 16


@triton_op("nondet_probe::matmul_triton", mutates_args=())
def _matmul(a: Tensor, b: Tensor, variant: str) -> Tensor:
    shape = shape_of_product(a, b, variant)
    batch, (rows, columns, terms) = shape[:-2], (*shape[-2:], a.shape[-1])
    count = math.prod(batch)
    if terms == 0 or count * rows * columns == 0:
        return a.new_zeros(shape)
    check_grid("matmul", variant, count)
    left = a.expand(*batch, rows, terms).reshape(count, rows, terms)
    right = b.expand(*batch, terms, columns).reshape(count, terms, columns)
    slices, span = 1, terms
    if variant != "fixed_split":
        span = _BLOCK_K * ceil_div(ceil_div(terms, _BLOCK_K), _SLICES)
        slices = ceil_div(terms, span)
    sums = wide(a.dtype)
    if variant == "fixed_split":
        out = a.new_empty(shape)
    elif variant == "splitk_ordered":
        out = a.new_empty((slices, count * rows * columns), dtype=sums)
    else:
        # -0, which changes no sum.
        out = a.new_zeros((1, count * rows * columns), dtype=sums).neg()
    chain = a.dtype in (torch.float64, torch.float32)
    side = 32 if chain else 64
    grid = (ceil_div(rows, side) * ceil_div(columns, side), slices, count)
    launch(
        wrap_triton(product_tiles), grid, left, right, out, rows, columns, terms,
        *left.stride(), *right.stride(), span,
        VARIANT=variant, CHAIN=chain, BLOCK_K=_BLOCK_K, BLOCK_M=side, BLOCK_N=side, STEP=32,
    )  # fmt: skip
    if variant == "fixed_split":
        return out
    return fold(out, a.dtype, in_order=True).view(shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
    a, b, ctx.variant = inputs
    ctx.save_for_backward(a, b)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    a, b = ctx.saved_tensors
    of_a = of_b = None

    def product(left: Tensor, right: Tensor) -> Tensor:
        return matmul(left, right, ctx.variant)

    if ctx.needs_input_grad[0]:
        of_a = folded(gradient, b.mT, a.shape, product)
    if ctx.needs_input_grad[1]:
        of_b = folded(a.mT, gradient, b.shape, product)
    return of_a, of_b, None


_matmul.register_autograd(_gradients, setup_context=_keep)


def matmul(a: Tensor, b: Tensor, variant: str) -> Tensor:
    """The product of (..., M, K) and (..., K, N)."""
    result: Tensor = _matmul(a, b, variant)
    return result
