"""Sketches in a trace's database: one a step, with the names and shapes of what was sketched."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from nondet_probe.errors import RecordError
from nondet_probe.records.trace import TraceMeta
from nondet_probe.records.trace_file import SKETCH_TABLES
from nondet_probe.records.trace_tables import check_header, connect, page_bytes

__all__ = ["Layout", "SketchReader", "SketchRows"]

Layout = dict[str, tuple[int, ...]]
"""Name -> shape of what was sketched, in the order of the names."""

_LAST_STEP = 1 << 30
_MOST_DIMENSIONS = 64


class SketchRows:
    """What a writer holds back of sketches. The tables are made with the first one, so a trace
    without any has none."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[tuple[str, tuple[int, ...]], ...], int] = {}
        self._shapes: list[tuple[int, str, str]] = []
        self._sketches: list[tuple[int, str, int, bytes]] = []
        self._tables = False

    def add(self, step: int, form: str, shapes: Layout, buckets: bytes) -> None:
        """As `TraceWriter.sketch`."""
        layout = tuple(sorted(shapes.items()))
        number = self._layouts.get(layout)
        if number is None:
            number = self._layouts[layout] = len(self._layouts)
            self._shapes += [(number, name, json.dumps(shape)) for name, shape in layout]
        self._sketches.append((step, form, number, buckets))

    def write(self, connection: sqlite3.Connection) -> None:
        """Into the transaction that is open."""
        if not self._sketches:
            return
        if not self._tables:
            for statement in SKETCH_TABLES.values():
                connection.execute(statement)
        connection.executemany("INSERT INTO sketched VALUES (?, ?, ?)", self._shapes)
        connection.executemany("INSERT INTO sketches VALUES (?, ?, ?, ?)", self._sketches)

    def clear(self) -> None:
        """It was committed."""
        self._tables = self._tables or bool(self._sketches)
        self._shapes.clear()
        self._sketches.clear()


@dataclass(frozen=True)
class _Row:
    form: str
    layout: int


class SketchReader:
    """The sketches of one rank's trace, a context manager that holds its database open.

    directory, meta: of the trace. steps: those that have a sketch, rising. Raises RecordError, here
    and in `buckets`, for a database that is damaged or holds what no trace holds.
    """

    def __init__(self, directory: Path, database: Path, meta: TraceMeta) -> None:
        self.directory = directory
        self.meta = meta
        self._path = database
        self._rows: dict[int, _Row] = {}
        self._layouts: dict[int, Layout] = {}
        try:
            self._connection = connect(database)
            try:
                self._connection.execute("BEGIN")
                if check_header(database, self._connection):
                    self._read()
            except BaseException:
                self._connection.close()
                raise
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise self._damaged(str(error)) from error
        self.steps = list(self._rows)

    def __enter__(self) -> SketchReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def form(self, step: int) -> str:
        """The format of a step's sketch, such as "ndp-sketch-1"."""
        return self._rows[step].form

    def layout(self, step: int) -> Layout:
        """What was sketched."""
        return self._layouts[self._rows[step].layout]

    def buckets(self, step: int) -> npt.NDArray[np.float64]:
        """The sketch, float64 [buckets]."""
        query = "SELECT buckets FROM sketches WHERE step = ?"
        try:
            ((content,),) = self._connection.execute(query, (step,))
        except (sqlite3.Error, ValueError) as error:
            raise self._damaged(str(error)) from error
        if not isinstance(content, bytes) or len(content) % 8:
            raise self._damaged(f"the sketch of step {step} is not of whole float64 numbers")
        return np.frombuffer(content, "<f8").astype(np.float64)

    def _damaged(self, what: str) -> RecordError:
        return RecordError(f"{self._path} is truncated, damaged or not a trace: {what}")

    def _read(self) -> None:
        most = page_bytes(self._connection)
        found = self._connection.execute(
            "SELECT layout, name, shape FROM sketched ORDER BY rowid LIMIT ?", (most,)
        )
        for layout, name, shape in found:
            known = self._layouts.setdefault(layout, {})
            if not isinstance(name, str) or name in known:
                raise self._damaged(f"a sketched name is {name!r:.80}")
            known[name] = self._shape(shape)
        rows = self._connection.execute(
            "SELECT step, format, layout FROM sketches ORDER BY step LIMIT ?", (most,)
        )
        last = -1
        for step, form, layout in rows:
            sound = isinstance(form, str) and isinstance(step, int) and last < step < _LAST_STEP
            if not sound or layout not in self._layouts:
                raise self._damaged(f"the sketch of step {step!r:.40} is none")
            self._rows[step] = _Row(form, layout)
            last = step

    def _shape(self, text: object) -> tuple[int, ...]:
        try:
            shape = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            shape = None
        sound = isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS
        if not sound or not all(type(size) is int and 0 <= size < 1 << 63 for size in shape or ()):
            raise self._damaged(f"a shape is {text!r:.80}")
        return tuple(shape or ())
