"""Read a trace, whoever wrote it: read-only, nothing in it is executed, all of it is checked."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nondet_probe.errors import RecordError
from nondet_probe.records.codec import decode
from nondet_probe.records.trace import (
    KINDS,
    LEVELS,
    PHASES,
    SETUP,
    Site,
    TraceMeta,
    TraceRecord,
    Words,
)
from nondet_probe.records.trace_file import (
    APPLICATION_ID,
    FORMAT,
    NO_INPUTS,
    NO_OUTPUTS,
    TABLES,
    VERSION,
    database_name,
    live_name,
    meta_name,
)

__all__ = ["Columns", "Trace", "open_trace", "read_meta"]

_CHUNK = 1 << 16
# Few columns make reading fast: step, site and what is missing are one number, taken apart below.
_STEP_SHIFT, _SITE_SHIFT = 33, 2
_LAST_STEP, _MOST_SITES = 1 << 30, 1 << 31
_WIDTH = 5
_RECORDS = f"""
    SELECT (step << {_STEP_SHIFT}) | (site << {_SITE_SHIFT})
         | {NO_INPUTS} * (in0 IS NULL OR in1 IS NULL)
         | {NO_OUTPUTS} * (out0 IS NULL OR out1 IS NULL),
           ifnull(in0, 0), ifnull(in1, 0), ifnull(out0, 0), ifnull(out1, 0)
    FROM records ORDER BY number LIMIT ?"""
_EXTENT = """
    SELECT count(*), min(number), max(number), min(step), max(step), min(site), max(site)
    FROM (SELECT number, step, site FROM records LIMIT ?)"""
# No record takes less, all its columns small or NULL.
_LEAST_BYTES = 8
# The longest text a trace may hold, and the largest meta.json, in bytes.
_LONGEST = 1 << 20
_META_BYTES = 1 << 26

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """The records of a trace, one array each, int64 of one length; 0 where a digest is missing.

    number: 0, 1, ...; site: index into the trace's sites; in0, in1 and out0, out1: the two words of
    the digests; has_inputs, has_outputs: bool.
    """

    number: Ints
    step: Ints
    site: Ints
    in0: Ints
    in1: Ints
    out0: Ints
    out1: Ints
    has_inputs: npt.NDArray[np.bool_]
    has_outputs: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Trace:
    """One rank's trace, in memory. values: number of a record -> its figure."""

    directory: Path
    meta: TraceMeta
    sites: list[Site]
    arrays: Columns
    values: dict[int, float]

    def __len__(self) -> int:
        return len(self.arrays.number)

    def record(self, number: int) -> TraceRecord:
        """The record of this number; IndexError where there is none."""
        of = self.arrays
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        inputs: Words | None = None
        outputs: Words | None = None
        if of.has_inputs[number]:
            inputs = int(of.in0[number]), int(of.in1[number])
        if of.has_outputs[number]:
            outputs = int(of.out0[number]), int(of.out1[number])
        site = self.sites[of.site[number]]
        value = self.values.get(number)
        return TraceRecord(number, int(of.step[number]), site, inputs, outputs, value)

    def records(self, step: int | None = None) -> Iterator[TraceRecord]:
        """All records, or those of one step, in order."""
        chosen = self.arrays.number if step is None else np.flatnonzero(self.arrays.step == step)
        return (self.record(int(number)) for number in chosen)


def open_trace(path: Path, rank: int | None = None) -> Trace:
    """The trace in the folder `path`: of `rank`, or of the lowest one there.

    A trace that is still being written, or whose process was killed, is read up to its last
    finished step. Raises RecordError, naming the file and what is wrong with it, where it is
    absent, truncated, of another format or version, or holds what no trace holds.
    """
    rank = _choose(path, rank)
    meta = read_meta(path / meta_name(rank))
    final, live = path / database_name(rank), path / live_name(rank)
    if not final.exists() and live.exists():
        try:
            return _read(path, live, meta)
        except RecordError:
            # Its writer may have put the final one in its place just now.
            if not final.exists():
                raise
            meta = read_meta(path / meta_name(rank))
    trace = _read(path, final, meta)
    if meta.status != "running" and meta.coverage.records != len(trace):
        raise RecordError(
            f"{final} holds {len(trace)} records, {path / meta_name(rank)} says "
            f"{meta.coverage.records}: they are not of one trace, or one was altered"
        )
    return trace


def read_meta(path: Path) -> TraceMeta:
    """What a `meta.json` holds. Raises RecordError where that is not a trace's."""
    try:
        size = path.stat().st_size
        if size > _META_BYTES:
            raise RecordError(f"{path} has {size} bytes; no trace's has more than {_META_BYTES}")
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RecordError(
            f"{path} is missing: {path.parent} is not the folder of a trace"
        ) from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is truncated or not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RecordError(f"{path} is not of format {FORMAT!r}")
    if document.get("version") != VERSION:
        raise _version(path, document.get("version"))
    if "trace" not in document:
        raise RecordError(f"{path}: field trace is missing")
    try:
        meta: TraceMeta = decode(TraceMeta, document["trace"], "trace")
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error
    if meta.level not in LEVELS:
        raise RecordError(f"{path}: level {meta.level!r}; known are {', '.join(LEVELS)}")
    return meta


def _version(path: Path, version: Any) -> RecordError:
    return RecordError(
        f"{path} has version {version!r}; this nondet_probe reads version {VERSION}. "
        "Use the nondet_probe that wrote it, or a newer one."
    )


def _choose(path: Path, rank: int | None) -> int:
    try:
        names = os.listdir(path)
    except FileNotFoundError as error:
        raise RecordError(f"{path} does not exist") from error
    except NotADirectoryError as error:
        raise RecordError(f"{path} is a file; a trace is a folder") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
    matches = [re.fullmatch(r"rank_(\d{5})\.(live\.)?sqlite", name) for name in names]
    ranks = sorted({int(match[1]) for match in matches if match})
    if not ranks:
        raise RecordError(f"{path} holds no {database_name(rank or 0)}: it is not a trace's folder")
    if rank is None:
        return ranks[0]
    if rank not in ranks:
        raise RecordError(f"{path} holds no rank {rank}; it holds {', '.join(map(str, ranks))}")
    return rank


def _read(directory: Path, path: Path, meta: TraceMeta) -> Trace:
    if not path.is_file():
        raise RecordError(f"{path} is missing, or is no file")
    try:
        with closing(_connect(path)) as connection:
            # One transaction, so that all tables are seen as of one moment.
            connection.execute("BEGIN")
            _check_header(path, connection)
            sites = _sites(path, connection)
            columns = _columns(path, connection, len(sites))
            values = _values(path, connection, len(columns.number))
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        raise RecordError(f"{path} is truncated, damaged or not a trace: {error}") from error
    return Trace(directory, meta, sites, columns, values)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _check_header(path: Path, connection: sqlite3.Connection) -> None:
    ((application,),) = connection.execute("PRAGMA application_id")
    if application != APPLICATION_ID:
        raise RecordError(f"{path} is a database, but not a trace's")
    ((version,),) = connection.execute("PRAGMA user_version")
    if version != VERSION:
        raise _version(path, version)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchmany(100)
    for kind, name, statement in rows:
        if name not in TABLES or kind != "table":
            raise RecordError(f"{path} holds a {kind} {name!r}, which no trace has")
        if statement != TABLES[name]:
            raise RecordError(f"{path}: its table {name} has other columns than a trace's")
    if missing := TABLES.keys() - {name for _, name, _ in rows}:
        raise RecordError(f"{path}: table {', '.join(sorted(missing))} is missing")


def _sites(path: Path, connection: sqlite3.Connection) -> list[Site]:
    sites: list[Site] = []
    for number, *parts in connection.execute("SELECT * FROM sites ORDER BY site"):
        site = Site(*parts)
        texts = (site.module, site.file, site.note)
        sound = (
            number == len(sites)
            and site.phase in PHASES
            and site.kind in KINDS
            and isinstance(site.name, str)
            and all(text is None or isinstance(text, str) for text in texts)
            and (site.line is None or isinstance(site.line, int))
        )
        if not sound:
            raise RecordError(
                f"{path}: site {number} is none that a trace can have: {parts!r:.200}"
            )
        sites.append(site)
    return sites


def _columns(path: Path, connection: sqlite3.Connection, sites: int) -> Columns:
    count = _count(path, connection, sites)
    table = np.empty((count, _WIDTH), np.int64)
    cursor = connection.execute(_RECORDS, (count,))
    cursor.arraysize = _CHUNK
    for start in range(0, count, _CHUNK):
        rows = table[start : start + _CHUNK]
        try:
            flat = np.fromiter(chain.from_iterable(islice(cursor, len(rows))), np.int64, rows.size)
        except (TypeError, ValueError) as error:
            raise RecordError(f"{path}: a record holds what is no number ({error})") from error
        rows[:] = flat.reshape(rows.shape)
    packed, in0, in1, out0, out1 = (np.ascontiguousarray(table[:, i]) for i in range(_WIDTH))
    return Columns(
        np.arange(count),
        packed >> _STEP_SHIFT,
        packed >> _SITE_SHIFT & (_MOST_SITES - 1),
        in0,
        in1,
        out0,
        out1,
        packed & NO_INPUTS == 0,
        packed & NO_OUTPUTS == 0,
    )


def _count(path: Path, connection: sqlite3.Connection, sites: int) -> int:
    """The number of records, once it is known that they are numbered without a gap and that their
    steps and sites exist. A file whose pages lead in circles has a limit here too."""
    ((pages,),) = connection.execute("PRAGMA page_count")
    ((size,),) = connection.execute("PRAGMA page_size")
    most = pages * size // _LEAST_BYTES
    (row,) = connection.execute(_EXTENT, (most + 1,))
    count = int(row[0])
    extent = row[1:]
    if not count:
        return 0
    if count > most or not all(isinstance(value, int) for value in extent):
        raise RecordError(f"{path} is damaged: its records cannot be what they seem")
    first, last, first_step, last_step, first_site, last_site = extent
    if (first, last) != (0, count - 1):
        raise RecordError(f"{path}: its records are not numbered 0, 1, 2, ...")
    if not (
        first_step >= SETUP and last_step < _LAST_STEP and 0 <= first_site <= last_site < sites
    ):
        raise RecordError(f"{path}: a record has a step or a site that is not there")
    return count


def _values(path: Path, connection: sqlite3.Connection, records: int) -> dict[int, float]:
    values: dict[int, float] = {}
    for number, value in connection.execute("SELECT number, value FROM figures"):
        if not 0 <= number < records or not isinstance(value, float | None):
            raise RecordError(f"{path}: figure {value!r:.40} of record {number} is none")
        values[number] = float("nan") if value is None else value
    return values
