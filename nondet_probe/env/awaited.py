"""Do something as soon as a module has been imported, and not before: it is imported when, and as,
the program does it."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["when_imported"]


def when_imported(name: str, call: Callable[[], object]) -> None:
    """`call` once `import name` has run, before the program goes on; at once where it has already.

    What the import raises passes, and it is waited for no more; what `call` raises passes too.
    """
    if name in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Awaiting(name, call))


class _Awaiting(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, call: Callable[[], object]) -> None:
        self._name = name
        self._call = call

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        loader = spec.loader if spec is not None else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def and_call(module: ModuleType) -> None:
            # The loader is the program's again before anything else runs.
            del loader.exec_module
            execute(module)
            self._call()

        loader.exec_module = and_call  # type: ignore[method-assign]
        return spec
