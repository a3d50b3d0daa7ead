"""What every launch has in common: its options, and the shapes that kernels are given."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.kernels.parts import chunk_sums, fold_parts

__all__ = [
    "CHUNK",
    "ROWS",
    "ceil_div",
    "check_grid",
    "fold",
    "launch",
    "launched_parts",
    "levels",
    "rows_of",
    "sum_of_rows",
    "wide",
]

CHUNK = 4096
"""Elements of a chunk in the `fixed_order` sum (docs/ops.md): this never changes."""
ROWS = 4
"""Rows that a program works on: no format."""
_GROUP = 64
_BLOCK = 128
_MOST_BATCHES = 65535


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def launch(
    kernel: Any, grid: tuple[int, ...], *given: Any, num_warps: int = 4, **flags: Any
) -> None:
    """Run what `wrap_triton` made of a kernel.

    Being traced, it takes no option of the compiler, so that formats must not need one: what must
    not be fused is not (kernels/floats.py).
    """
    if hasattr(kernel, "kernel_idx"):
        kernel[grid](*given, num_warps=num_warps, **flags)
        return
    flags["enable_fp_fusion"] = False
    # Triton launches on the current device, whatever the tensors'.
    device = given[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*given, num_warps=num_warps, **flags)


def check_grid(op: str, variant: str, batches: int) -> None:
    """UsageError for more batches than CUDA takes in the second or third dimension of a grid."""
    if batches > _MOST_BATCHES:
        raise UsageError(
            f"{op} variant {variant!r}: backend 'triton' takes up to {_MOST_BATCHES} batches, got "
            f"{batches}; cut the input"
        )


def levels(chunks: int) -> int:
    """LEVELS for so many chunks: the next power of two of the bits of their number."""
    bits = max(1, chunks.bit_length())
    return 1 << (bits - 1).bit_length()


def wide(dtype: torch.dtype) -> torch.dtype:
    """What rows of this dtype are computed in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def rows_of(x: Tensor, columns: int) -> int:
    return x.numel() // columns if columns else 0


def launched_parts(x: Tensor) -> int:
    """Into how many parts `two_pass` cuts: what this device runs at once."""
    if not x.is_cuda:
        return 4
    return 2 * torch.cuda.get_device_properties(x.device).multi_processor_count


def fold(parts: Tensor, dtype: torch.dtype, *, in_order: bool = False) -> Tensor:
    """The sums (columns,) of parts (count, columns), in rounds of neighbours or in order.

    Groups of a power of two neighbours are part of the tree over all: so it takes several launches.
    """
    wrap = torch.library.wrap_triton
    while True:
        count, columns = parts.shape
        group = count if in_order else min(count, _GROUP)
        groups = ceil_div(count, group)
        out = parts.new_empty((groups, columns), dtype=dtype if groups == 1 else parts.dtype)
        grid = (ceil_div(columns, _BLOCK), groups)
        launch(
            wrap(fold_parts), grid, parts, out, count, columns, group,
            IN_ORDER=in_order, LEVELS=1 if in_order else levels(group), BLOCK=_BLOCK,
        )  # fmt: skip
        if groups == 1:
            return out.view(columns)
        parts = out


def sum_of_rows(x: Tensor, variant: str) -> Tensor:
    """The sum (1,) of a vector of one element or more, float64 or float32, by a variant."""
    n = x.numel()
    span = CHUNK
    if variant == "two_pass":
        span = ceil_div(n, launched_parts(x))
    chunks = ceil_div(n, span)
    sums = x.new_zeros(1) if variant == "atomic" else x.new_empty(chunks)
    kernel = torch.library.wrap_triton(chunk_sums)
    launch(kernel, (chunks,), x, sums, n, span, VARIANT=variant, num_warps=1)
    return sums if variant == "atomic" else fold(sums.view(-1, 1), x.dtype)
