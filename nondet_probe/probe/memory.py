"""How much memory a call takes beyond what was there before it, as the system counts it; and how
much is free."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

__all__ = ["RESOLUTION", "extra_bytes", "free_bytes"]

RESOLUTION = 1 << 20
"""Bytes below which a measurement says nothing: threads' stacks, and counts that the kernel keeps
per processor."""

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_SYSTEM = Path("/proc/meminfo")


def extra_bytes(call: Callable[[], int]) -> int | None:
    """The most resident memory that the process took at once during `call`, less what it returns.

    call: does the work and returns the bytes that its result takes. None where it cannot be
    measured: it takes Linux's resettable high-water mark, and glibc's malloc_trim so that memory
    freed earlier is not used again unseen. Never below 0. A second call would have found pages that
    the first one left, so each call is preceded by the trimming.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    trim(0)
    try:
        _CLEAR.write_text("5")
        before = _kilobytes(_STATUS, "VmRSS")
        result = call()
        peak = _kilobytes(_STATUS, "VmHWM")
    except OSError:
        return None
    return max(0, (peak - before) * 1024 - result)


def free_bytes() -> int | None:
    """What the system can still give; None where it does not tell."""
    try:
        return _kilobytes(_SYSTEM, "MemAvailable") * 1024
    except OSError:
        return None


def _kilobytes(file: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{file} has no {name}")
    return int(found[1])
