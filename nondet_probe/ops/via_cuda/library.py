"""What a launch needs, for the modules of this package."""

from __future__ import annotations

from torch import Tensor

from nondet_probe.bits.device import (
    launch_blocks,
    library,
    not_captured,
    on_device,
    stream_of,
    why_not,
    workspace,
)
from nondet_probe.errors import UsageError

__all__ = [
    "launch_blocks",
    "library",
    "no_threads",
    "not_captured",
    "on_device",
    "same_device",
    "stream_of",
    "why_not",
    "workspace",
]


def no_threads(threads: int | None) -> None:
    """UsageError when threads are asked for."""
    if threads is not None:
        raise UsageError(f"threads is for tensors on cpu; this one is on a GPU, got {threads}")


def same_device(op: str, *tensors: Tensor) -> None:
    """TypeError, in the name of `op`, unless all tensors are on one device."""
    devices = {str(tensor.device): None for tensor in tensors}
    if len(devices) > 1:
        raise TypeError(f"{op} takes tensors on one device, got {' and '.join(devices)}")
