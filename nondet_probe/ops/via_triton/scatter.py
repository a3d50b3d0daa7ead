"""index_add and scatter_add in Triton: rows added into the rows of a table."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from nondet_probe.bits.device import not_captured
from nondet_probe.kernels.scatter import finish_fixed, largest_element, scatter_rows
from nondet_probe.ops.via_triton.launch import ceil_div, launch

__all__ = ["index_add", "scatter_add"]

_BLOCK = 512


@triton_op("nondet_probe::scatter_rows_triton", mutates_args=())
def _scatter(table: Tensor, index: Tensor, source: Tensor, variant: str) -> Tensor:
    """A new table [destinations, columns] with source[i] [columns] added at index[i], for all i."""
    table, index, source = table.contiguous(), index.contiguous(), source.contiguous()
    destinations, columns = table.shape
    n, cells = index.numel(), table.numel()
    if n * columns == 0:
        return table.clone()
    grid, count_bits = (ceil_div(n * columns, _BLOCK),), (n + 1).bit_length()
    if variant == "atomic":
        out = table.clone()
        launch(
            wrap_triton(scatter_rows), grid, index, source, out, table, index, index,
            n, columns, destinations, count_bits, VARIANT=variant, BLOCK=_BLOCK,
        )  # fmt: skip
        return out
    most = torch.zeros(1, dtype=torch.int64, device=table.device)
    launch(wrap_triton(largest_element), grid, source, most, n * columns, BLOCK=_BLOCK)
    every_cell = (ceil_div(cells, _BLOCK),)
    launch(wrap_triton(largest_element), every_cell, table, most, cells, BLOCK=_BLOCK)
    totals = torch.zeros(cells, dtype=torch.int64, device=table.device)
    flags = torch.zeros(cells, dtype=torch.int32, device=table.device)
    launch(
        wrap_triton(scatter_rows), grid, index, source, totals, table, flags, most,
        n, columns, destinations, count_bits, VARIANT=variant, BLOCK=_BLOCK,
    )  # fmt: skip
    result = torch.empty_like(table)
    launch(
        wrap_triton(finish_fixed), every_cell, totals, table, flags, most, result, cells,
        count_bits, BLOCK=_BLOCK,
    )  # fmt: skip
    return result


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    of_source = gradient.index_select(0, index) if ctx.needs_input_grad[2] else None
    return gradient, None, of_source, None


_scatter.register_autograd(_gradients, setup_context=_keep)


def _check_indices(op: str, index: Tensor, size: int) -> None:
    """IndexError names the first index out of range; in a graph, where nobody looks, nothing is
    added for such an index."""
    if torch.compiler.is_compiling():
        return
    not_captured(op, index)
    bad = (index < 0) | (index >= size)
    if bad.any():
        place = int(bad.reshape(-1).nonzero()[0])
        raise IndexError(
            f"{op}: index {int(index.reshape(-1)[place])} at position {place} is out of range for "
            f"size {size}"
        )


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, variant: str) -> Tensor:
    """input with source[..., i, ...] added at index[i] along dim, for all i."""
    if input.dim() == 0:
        return index_add(input.view(1), 0, index.view(-1), source.view(1), variant).view(())
    size, shape = input.shape[dim], input.shape
    before, columns = math.prod(shape[:dim]), math.prod(shape[dim + 1 :])
    index = index.reshape(-1)
    _check_indices("index_add", index, size)
    if before != 1:
        # Rows of `before` tables, one below the other.
        tables = torch.arange(before, device=index.device).unsqueeze(1) * size
        index = (tables + index).reshape(-1)
    table = input.reshape(before * size, columns)
    result: Tensor = _scatter(table, index, source.reshape(index.numel(), columns), variant)
    return result.view(shape)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor, variant: str) -> Tensor:
    """input with src[i] added where index[i] says along dim, for every element i of the index."""
    _check_indices("scatter_add", index, input.shape[dim] if input.dim() else 1)
    src = src[tuple(slice(size) for size in index.shape)]
    cells = torch.zeros_like(index, dtype=torch.int64)
    stride = 1
    for d in reversed(range(index.dim())):
        if d == dim:
            cells = cells + index * stride
        else:
            place = torch.arange(index.shape[d], device=index.device) * stride
            cells = cells + place.view(-1, *(1 for _ in range(index.dim() - 1 - d)))
        stride *= input.shape[d]
    rows = src.reshape(-1, 1)
    result: Tensor = _scatter(input.reshape(-1, 1), cells.reshape(-1), rows, variant)
    return result.view(input.shape)
