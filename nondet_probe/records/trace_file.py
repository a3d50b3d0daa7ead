"""The files of a trace: their names, format and tables, as docs/traces.md describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nondet_probe.errors import RecordError

__all__ = [
    "APPLICATION_ID",
    "FORMAT",
    "LATER_FIELDS",
    "LIVE",
    "NO_INPUTS",
    "NO_OUTPUTS",
    "SKETCH_TABLES",
    "TABLES",
    "VERSION",
    "database_name",
    "live_name",
    "meta_name",
    "version_error",
]

FORMAT = "nondet_probe.trace"
VERSION = 1

APPLICATION_ID = 0x6E647472
"""In the header of the database, the letters "ndtr"; `user_version` beside it holds VERSION."""

TABLES = {
    "sites": (
        "CREATE TABLE sites(site INTEGER PRIMARY KEY, phase TEXT NOT NULL, kind TEXT NOT NULL,"
        " name TEXT NOT NULL, module TEXT, file TEXT, line INTEGER, note TEXT)"
    ),
    "records": (
        "CREATE TABLE records(number INTEGER PRIMARY KEY, step INTEGER NOT NULL,"
        " site INTEGER NOT NULL, in0 INTEGER, in1 INTEGER, out0 INTEGER, out1 INTEGER)"
    ),
    "figures": "CREATE TABLE figures(number INTEGER PRIMARY KEY, value REAL)",
}
"""Name -> the statement that makes it, word for word as the database keeps it. A reader takes a
file with exactly these tables and nothing else: no view, trigger, or expression of a stranger."""

SKETCH_TABLES = {
    "sketches": (
        "CREATE TABLE sketches(step INTEGER PRIMARY KEY, format TEXT NOT NULL,"
        " layout INTEGER NOT NULL, buckets BLOB NOT NULL)"
    ),
    "sketched": (
        "CREATE TABLE sketched(layout INTEGER NOT NULL, name TEXT NOT NULL, shape TEXT NOT NULL)"
    ),
}
"""Beside TABLES in a trace with sketches: both, or neither."""
LATER_FIELDS: dict[str, Any] = {"injected": None}
"""Of `TraceMeta`, fields that a trace of this version may lack -> what it means that one is not
there; a trace in which it would say just that has none."""

NO_INPUTS, NO_OUTPUTS = 1, 2
"""Bits that say which digests of a record are missing."""


LIVE = ".live.sqlite"
"""How the name of a database ends that is not finished."""


def database_name(rank: int) -> str:
    """Of a trace that was closed."""
    return f"rank_{rank:05d}.sqlite"


def live_name(rank: int) -> str:
    """Of a trace that is being written, or whose process was killed. It is another file than the
    closed one, so that no reader ever sees one with the write-ahead log of the other."""
    return f"rank_{rank:05d}{LIVE}"


def meta_name(rank: int) -> str:
    """Ranks write without waiting for each other, so each has its own."""
    return "meta.json" if rank == 0 else f"meta_{rank:05d}.json"


def version_error(path: Path, version: object) -> RecordError:
    """What a reader says to another version."""
    return RecordError(
        f"{path} has version {version!r}; this nondet_probe reads version {VERSION}. "
        "Use the nondet_probe that wrote it, or a newer one."
    )
