"""Tensors on their way into the kernels of `nondet_probe._C`; the only module in `ops` that
imports it."""

from __future__ import annotations

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError

__all__ = ["sum_all"]


def sum_all(x: Tensor, variant: str, threads: int | None) -> Tensor:
    """The sum of a contiguous CPU tensor of a dtype that the variant takes, as a 0-d tensor.

    threads: at most so many are used; None is torch.get_num_threads(). UsageError when it is below
    1 and when NONDET_PROBE_ISA names an instruction set that is not available.
    """
    if threads is None:
        threads = torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    result = torch.empty((), dtype=x.dtype, device="cpu")
    try:
        _C.sum(variant, CODES[x.dtype], x.data_ptr(), x.numel(), threads, "", result.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return result
