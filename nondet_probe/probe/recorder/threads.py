"""Threads that the program starts: dispatch modes belong to a thread, so their ops are not seen."""

from __future__ import annotations

import functools
import threading
from types import TracebackType
from typing import Any

from nondet_probe.probe.recorder.sink import Sink

__all__ = ["Threads"]

_REASON = "threads that the program started: ops they called were not seen"
# Threads of libraries that touch no tensors, or only to hand on batches: part of the name, in which
# is what they run, or the package of the class.
_HARMLESS_NAMES = ("QueueFeederThread", "_pin_memory_loop")
_HARMLESS_PACKAGES = ("tqdm.",)


class Threads:
    """Counts every `threading.Thread` that starts during a recording, and those that ran already.

    Whether a thread calls ops at all is not known: it counts as one thing not seen.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._started = 0
        self._original: Any = None
        sink.at_step_end(self._tell)

    def __enter__(self) -> Threads:
        mine = threading.current_thread()
        self._started = sum(not _harmless(t) for t in threading.enumerate() if t is not mine)
        self._original = original = threading.Thread.start

        @functools.wraps(original)
        def start(thread: threading.Thread) -> None:
            original(thread)
            self._started += not _harmless(thread)

        threading.Thread.start = start  # type: ignore[method-assign, assignment]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        threading.Thread.start = self._original  # type: ignore[method-assign]
        self._tell()

    def _tell(self) -> None:
        if self._started:
            self._sink.not_covered(_REASON, self._started)
            self._started = 0


def _harmless(thread: threading.Thread) -> bool:
    return type(thread).__module__.startswith(_HARMLESS_PACKAGES) or any(
        name in thread.name for name in _HARMLESS_NAMES
    )
