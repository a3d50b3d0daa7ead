"""What a launch needs, for the modules of this package."""

from __future__ import annotations

from nondet_probe.bits.device import (
    launch_blocks,
    library,
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
    "on_device",
    "stream_of",
    "why_not",
    "workspace",
]


def no_threads(threads: int | None) -> None:
    """UsageError when threads are asked for."""
    if threads is not None:
        raise UsageError(f"threads is for tensors on cpu; this one is on a GPU, got {threads}")
