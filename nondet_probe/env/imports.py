"""Notice when a program first imports a module, also one that is loaded already."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["at_first_import"]


@contextmanager
def at_first_import(module: str, call: Callable[[], None]) -> Iterator[None]:
    """In the body, `call()` before the first `import module` (or of a module in it) of any code."""
    original = builtins.__import__
    done = False

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if not done and name.partition(".")[0] == module:
            done = True
            call()
        return original(name, *args, **kwargs)

    builtins.__import__ = importing
    try:
        yield
    finally:
        builtins.__import__ = original
