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
from nondet_probe.records.trace import KINDS, LEVELS, PHASES, Site, TraceMeta, TraceRecord, Words
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
_WIDTH = 8
_RECORDS = (
    "SELECT number, step, site, ifnull(in0, 0), ifnull(in1, 0), ifnull(out0, 0), ifnull(out1, 0),"
    f" {NO_INPUTS} * (in0 IS NULL OR in1 IS NULL) + {NO_OUTPUTS} * (out0 IS NULL OR out1 IS NULL)"
    " FROM records ORDER BY number"
)
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
    cursor = connection.execute(_RECORDS)
    cursor.arraysize = _CHUNK
    chunks = [np.empty((0, _WIDTH), np.int64)]
    count = 0
    while True:
        try:
            flat = np.fromiter(chain.from_iterable(islice(cursor, _CHUNK)), np.int64)
        except (TypeError, ValueError) as error:
            raise RecordError(f"{path}: a record holds what is no number ({error})") from error
        if not len(flat):
            break
        chunk = flat.reshape(-1, _WIDTH)
        # At once, so that a file whose pages lead in circles ends here.
        if not np.array_equal(chunk[:, 0], np.arange(count, count + len(chunk))):
            raise RecordError(f"{path}: its records are not numbered 0, 1, 2, ...")
        count += len(chunk)
        chunks.append(chunk)
    table = np.concatenate(chunks)
    number, step, site, in0, in1, out0, out1, missing = (
        np.ascontiguousarray(table[:, column]) for column in range(_WIDTH)
    )
    if count and not (site.min() >= 0 and site.max() < sites and step.min() >= -1):
        raise RecordError(f"{path}: a record has a step or a site that is not there")
    has_inputs, has_outputs = missing & NO_INPUTS == 0, missing & NO_OUTPUTS == 0
    return Columns(number, step, site, in0, in1, out0, out1, has_inputs, has_outputs)


def _values(path: Path, connection: sqlite3.Connection, records: int) -> dict[int, float]:
    values: dict[int, float] = {}
    for number, value in connection.execute("SELECT number, value FROM figures"):
        if not 0 <= number < records or not isinstance(value, float | None):
            raise RecordError(f"{path}: figure {value!r:.40} of record {number} is none")
        values[number] = float("nan") if value is None else value
    return values
