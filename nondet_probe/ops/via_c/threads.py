"""How many threads a kernel is given."""

from __future__ import annotations

import torch

from nondet_probe.errors import UsageError

__all__ = ["at_most"]


def at_most(threads: int | None) -> int:
    """The most to use: None is torch.get_num_threads(). UsageError when it is below 1."""
    if threads is None:
        return torch.get_num_threads()
    if threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    return threads
