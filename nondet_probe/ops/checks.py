"""What a kernel is handed, refused in words where it cannot take it."""

from __future__ import annotations

from torch import Tensor

from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.bits.via_c import has_memory
from nondet_probe.ops.registry import find

__all__ = ["check_dtype", "check_memory", "readable"]


def check_dtype(op: str, variant: str, x: Tensor) -> None:
    """TypeError naming the dtypes taken when x has another one; UnknownNameError for a variant."""
    taken = find(op, variant).dtypes
    if x.dtype not in taken:
        names = ", ".join(dtype_name(dtype) for dtype in taken)
        raise TypeError(
            f"{op} variant {variant!r} takes {names}; got {dtype_name(x.dtype)}; convert it first"
        )


def readable(x: Tensor) -> Tensor:
    """x, or where that is not contiguous a copy in row-major order. Errors: as check_memory."""
    if _fills_memory(x):
        return x
    check_memory(x)
    return x.contiguous()


def check_memory(x: Tensor) -> None:
    """TypeError when not all elements of x lie in memory."""
    if not (_fills_memory(x) or has_memory(x)):
        raise TypeError(
            f"this tensor of shape {tuple(x.shape)} has no memory behind it, or not enough: its "
            "storage was shrunk"
        )


def _fills_memory(x: Tensor) -> bool:
    """Whether x lies in row-major order at the start of memory of its own: the usual case, told by
    fewer questions than the others."""
    return (
        x.is_contiguous()
        and x.storage_offset() == 0
        and x.nbytes <= x.untyped_storage().nbytes()
        and x.data_ptr() != 0
    )
