"""What row-wise kernels are handed, wherever they run."""

from __future__ import annotations

import torch
from torch import Tensor

from nondet_probe.errors import UsageError

__all__ = ["address", "whole_rows", "wide"]


def whole_rows(x: Tensor, columns: int) -> int:
    """How many rows of `columns` elements x has. UsageError where something is left over."""
    if columns < 0 or (x.numel() % columns if columns else x.numel()):
        raise UsageError(f"a tensor of shape {tuple(x.shape)} has no rows of {columns} elements")
    return x.numel() // columns if columns else 0


def wide(dtype: torch.dtype) -> torch.dtype:
    """What statistics are kept in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def address(x: Tensor | None) -> int:
    """0 where there is no tensor."""
    return 0 if x is None else x.data_ptr()
