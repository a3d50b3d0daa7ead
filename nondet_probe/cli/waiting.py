"""A progress bar for what may be over at once: it shows up after a second, on stderr."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["Waiting"]

_PATIENCE = 1.0


class Waiting:
    """`with Waiting("comparing") as bar: ... bar(done, total)`; without figures it only moves."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            # In a log it would say nothing.
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task(what, total=None)
        self._timer = threading.Timer(_PATIENCE, self._bars.start)
        self._timer.daemon = True

    def __call__(self, done: int, total: int) -> None:
        """So many are done."""
        self._bars.update(self._task, completed=done, total=total)

    def __enter__(self) -> Waiting:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        # It may be starting the bar just now.
        self._timer.join()
        if self._bars.live.is_started:
            self._bars.stop()
