"""What memory holds that the host's allocator hands out: glibc can be told to fill it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["PATTERNS", "filled_allocations"]

PATTERNS = (0x7F, 0xC1)
"""Two bytes to fill memory with: as floats of any width large and positive, and small and negative;
neither is the NaN that torch's own fill writes."""

_M_PERTURB = -6
_SIZES = (5000, 300_000)  # from the heap, and memory mapped for itself


@contextmanager
def filled_allocations(pattern: int) -> Iterator[bool]:
    """Memory that malloc hands out holds `pattern` (a byte, 1 to 255), process-wide, for the body.

    A few pieces below 1 KiB, which malloc keeps at hand, hold the pattern's complement, with up to
    two pointers of malloc's own at their beginning. Yields whether it works: glibc does it
    (mallopt(3), M_PERTURB), other allocators do not.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield False
        return
    # glibc takes the byte for freed memory and hands out its complement.
    mallopt(_M_PERTURB, pattern ^ 0xFF)
    try:
        yield all(_holds(size, pattern) for size in _SIZES)
    finally:
        mallopt(_M_PERTURB, 0)


def _holds(size: int, pattern: int) -> bool:
    found = torch.empty(size, dtype=torch.uint8, device="cpu")
    return bool((found == pattern).all())
