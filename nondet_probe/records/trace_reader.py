"""Read a trace, whoever wrote it: read-only, nothing in it is executed, all of it is checked."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nondet_probe.errors import RecordError, UsageError
from nondet_probe.records.codec import decode
from nondet_probe.records.files import sha256_of
from nondet_probe.records.trace import (
    LEVELS,
    Site,
    TraceMeta,
    TraceRecord,
    Words,
)
from nondet_probe.records.trace_file import (
    FORMAT,
    LATER_FIELDS,
    VERSION,
    database_name,
    live_name,
    meta_name,
    version_error,
)
from nondet_probe.records.trace_sketches import SketchReader
from nondet_probe.records.trace_tables import Columns, read_tables

__all__ = ["Columns", "Trace", "open_sketches", "open_trace", "read_meta"]

# The largest meta.json, in bytes.
_META_BYTES = 1 << 26


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
    meta, sha256 = _read_meta(path / meta_name(rank))
    final, live = path / database_name(rank), path / live_name(rank)
    if not final.exists() and live.exists():
        try:
            return _read(path, live, meta)
        except RecordError:
            # Its writer may have put the final one in its place just now.
            if not final.exists():
                raise
            meta, sha256 = _read_meta(path / meta_name(rank))
    trace = _read(path, final, meta)
    _check_sum(final, sha256, path / meta_name(rank))
    return trace


def open_sketches(path: Path, rank: int | None = None) -> SketchReader:
    """The sketches of the trace in the folder `path`, to be used in a `with`; as `open_trace`."""
    rank = _choose(path, rank)
    meta, sha256 = _read_meta(path / meta_name(rank))
    final, live = path / database_name(rank), path / live_name(rank)
    if not final.exists() and live.exists():
        return SketchReader(path, live, meta)
    if not final.is_file():
        raise RecordError(f"{final} is missing, or is no file")
    reader = SketchReader(path, final, meta)
    try:
        _check_sum(final, sha256, path / meta_name(rank))
    except RecordError:
        reader.__exit__(None, None, None)
        raise
    return reader


def _check_sum(database: Path, sha256: str | None, meta: Path) -> None:
    if sha256 is not None and sha256_of(database) != sha256:
        raise RecordError(
            f"{database} was altered, or is of another run: its SHA-256 is not the one that "
            f"{meta} holds"
        )


def read_meta(path: Path) -> TraceMeta:
    """What a `meta.json` holds. Raises RecordError where that is not a trace's."""
    return _read_meta(path)[0]


def _read_meta(path: Path) -> tuple[TraceMeta, str | None]:
    """The same, and the SHA-256 of the finished database."""
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
        raise version_error(path, document.get("version"))
    for field in ("trace", "database_sha256"):
        if field not in document:
            raise RecordError(f"{path}: field {field} is missing")
    trace = document["trace"]
    if isinstance(trace, dict):
        trace = {**LATER_FIELDS, **trace}
    try:
        meta: TraceMeta = decode(TraceMeta, trace, "trace")
    except (RecordError, UsageError) as error:
        raise RecordError(f"{path}: {error}") from error
    if meta.level not in LEVELS:
        raise RecordError(f"{path}: level {meta.level!r}; known are {', '.join(LEVELS)}")
    return meta, document["database_sha256"]


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
        return Trace(directory, meta, *read_tables(path))
    except (sqlite3.Error, OverflowError, UnicodeError) as error:
        raise RecordError(f"{path} is truncated, damaged or not a trace: {error}") from error
