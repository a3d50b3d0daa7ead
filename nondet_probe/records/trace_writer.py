"""Write a trace: cheap while the training runs, readable at any time, a fixed file in the end."""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from nondet_probe.errors import RecordError, UsageError
from nondet_probe.records.codec import encode
from nondet_probe.records.files import sha256_of, write_whole
from nondet_probe.records.trace import Site, TraceMeta, Words
from nondet_probe.records.trace_file import (
    APPLICATION_ID,
    FORMAT,
    LATER_FIELDS,
    TABLES,
    VERSION,
    database_name,
    live_name,
    meta_name,
)
from nondet_probe.records.trace_sketches import SketchRows

__all__ = ["TraceWriter"]

# Records held back at most: a program may never finish a step.
_HELD = 1 << 16
_NOTHING: tuple[None, None] = (None, None)
_OF_A_GROUP = re.compile(r"\.?(rank_(\d{5})\..*|meta_(\d{5})\.json.*|meta\.json.*)")


class TraceWriter:
    """One rank's trace, in a folder that this makes.

    While it is written, the database has a write-ahead log: a reader sees all up to the last
    `flush`, never holds up the writer, and a killed process leaves what was flushed. `close` makes
    a new file of it that depends on nothing but the records, byte for byte.

    It belongs to the process that made it, and there to one thread at a time. In a forked child
    `add`, `flush`, `update` and `close` do nothing.

    Raises UsageError where `directory` exists and is not empty (ranks of one group share theirs),
    RecordError where it cannot be written, here and in `flush`, `update` and `close`.
    """

    def __init__(self, directory: Path, meta: TraceMeta) -> None:
        self.directory = directory
        self.meta = meta
        self._pid = os.getpid()
        self._sites: dict[Site, int] = {}
        self._new_sites: list[tuple[object, ...]] = []
        self._rows: list[tuple[int | None, ...]] = []
        self._figures: list[tuple[int, float | None]] = []
        self._sketches = SketchRows()
        self._count = 0
        self._closed = False
        self._sha256: str | None = None
        _make(directory, meta)
        self._live = directory / live_name(meta.rank)
        try:
            self._connection = _create(self._live)
        except sqlite3.Error as error:
            raise RecordError(f"{self._live} cannot be written: {error}") from error
        self.update()

    def site(self, site: Site) -> int:
        """Its number in this trace, from 0 in the order of first use."""
        number = self._sites.get(site)
        if number is None:
            number = len(self._sites)
            self._sites[site] = number
            self._new_sites.append((number, *(_text(part) for part in site)))
        return number

    def add(
        self,
        step: int,
        site: int,
        inputs: Words | None,
        outputs: Words | None,
        value: float | None = None,
    ) -> int:
        """Append a record; its number, -1 in a forked child. Kept in memory until `flush`."""
        if os.getpid() != self._pid:
            return -1
        number = self._count
        self._count = number + 1
        self._rows.append((number, step, site, *(inputs or _NOTHING), *(outputs or _NOTHING)))
        if value is not None:
            # SQLite has no NaN: NULL stands for it.
            self._figures.append((number, None if math.isnan(value) else value))
        if len(self._rows) >= _HELD:
            self.flush()
        return number

    def sketch(
        self, step: int, form: str, shapes: Mapping[str, Sequence[int]], buckets: bytes
    ) -> None:
        """Append the sketch of a step, one at most for each. form: its format; shapes: of what was
        sketched, by name; buckets: float64, little-endian. Kept in memory until `flush`."""
        named = {_utf8(name): tuple(shape) for name, shape in shapes.items()}
        self._sketches.add(step, form, named, buckets)

    def flush(self) -> None:
        """Commit what is held back: from here on readers see it. What could not be written is kept
        for the next time."""
        if self._closed or os.getpid() != self._pid:
            return
        connection = self._connection
        try:
            connection.execute("BEGIN")
            try:
                connection.executemany(
                    "INSERT INTO sites VALUES (?, ?, ?, ?, ?, ?, ?, ?)", self._new_sites
                )
                connection.executemany(
                    "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", self._rows
                )
                connection.executemany("INSERT INTO figures VALUES (?, ?)", self._figures)
                self._sketches.write(connection)
                connection.execute("COMMIT")
            except BaseException:
                # A full disk has ended the transaction already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise RecordError(f"{self._live} cannot be written: {error}") from error
        self._new_sites.clear()
        self._rows.clear()
        self._figures.clear()
        self._sketches.clear()

    def update(self) -> None:
        """Write `meta` again, the whole file at once."""
        if os.getpid() != self._pid:
            return
        self.meta.coverage.records = self._count
        trace = {
            name: value
            for name, value in encode(self.meta).items()
            if name not in LATER_FIELDS or value != LATER_FIELDS[name]
        }
        document = {
            "format": FORMAT,
            "version": VERSION,
            "database_sha256": self._sha256,
            "trace": trace,
        }
        # ASCII: an argument of a command line need not be text that UTF-8 can hold.
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        path = self.directory / meta_name(self.meta.rank)
        try:
            write_whole(path, text.encode(), sync=self._closed)
        except OSError as error:
            raise RecordError(f"{path} cannot be written: {error}") from error

    def close(self) -> None:
        """Flush, put the finished database in place of the live one, and write `meta`. What fails
        leaves the live one, which is as readable. A second call does nothing."""
        if self._closed or os.getpid() != self._pid:
            return
        self.flush()
        path = self.directory / database_name(self.meta.rank)
        fresh = path.with_name(f".{path.name}.new")
        try:
            # Page by page in the order of the rows: no trace of when steps were flushed, or of the
            # log and its readers.
            self._connection.execute("VACUUM INTO ?", (str(fresh),))
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            self._sha256 = sha256_of(fresh)
            os.replace(fresh, path)
            self._connection.close()
        except (sqlite3.Error, OSError) as error:
            fresh.unlink(missing_ok=True)
            raise RecordError(f"{path} cannot be written: {error}") from error
        self._closed = True
        # A reader may still hold the live one open; it keeps what it sees.
        for suffix in ("", "-wal", "-shm"):
            self._live.with_name(self._live.name + suffix).unlink(missing_ok=True)
        self.update()


def _text(part: str | int | None) -> str | int | None:
    return _utf8(part) if isinstance(part, str) else part


def _utf8(text: str) -> str:
    """What UTF-8 can hold: a file's name need not be."""
    return text.encode(errors="backslashreplace").decode()


def _make(directory: Path, meta: TraceMeta) -> None:
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise RecordError(f"{directory} cannot be made: {error}") from error
    if not directory.is_dir():
        raise UsageError(f"{directory} exists and is not a folder: name another one for the trace")
    taken = [name for name in sorted(os.listdir(directory)) if not _of_another_rank(name, meta)]
    if taken:
        raise UsageError(
            f"{directory} exists and is not empty (it holds {taken[0]}): nothing is overwritten, "
            "name another folder for the trace"
        )


def _of_another_rank(name: str, meta: TraceMeta) -> bool:
    match = _OF_A_GROUP.fullmatch(name)
    return meta.world > 1 and match is not None and int(match[2] or match[3] or 0) != meta.rank


def _create(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # Closing it in a forked child would act on the parent's file, so there it must never be
    # released; in this process `close` does it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    # What a killed process wrote is safe with the system; only a loss of power could harm it.
    connection.execute("PRAGMA synchronous = OFF")
    for statement in TABLES.values():
        connection.execute(statement)
    return connection
