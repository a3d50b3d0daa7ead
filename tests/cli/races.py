"""A race strikes when it likes, least of all on a busy machine: it is looked for until it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["struck"]

PATIENCE = 300.0

Found = TypeVar("Found")


def struck(look: Callable[[], Found], strikes: Callable[[Found], object]) -> Found:
    """What `look` gave when the race struck, or when nobody would wait for it any longer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if strikes(found) or time.monotonic() > deadline:
            return found
