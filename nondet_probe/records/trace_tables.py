"""Read the tables of a trace's database as those of a stranger: only what is checked comes out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nondet_probe.errors import RecordError
from nondet_probe.records.trace import KINDS, PHASES, SETUP, Site
from nondet_probe.records.trace_file import (
    APPLICATION_ID,
    LIVE,
    NO_INPUTS,
    NO_OUTPUTS,
    SKETCH_TABLES,
    TABLES,
    VERSION,
    version_error,
)

__all__ = ["Columns", "check_header", "connect", "page_bytes", "read_tables"]

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
# The longest text a trace may hold, in bytes.
_LONGEST = 1 << 20

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


def read_tables(path: Path) -> tuple[list[Site], Columns, dict[int, float]]:
    """Sites, records, and figures by the number of their record, all of one moment.

    Raises RecordError naming what is wrong; sqlite3.Error, OverflowError or UnicodeError where the
    database is damaged.
    """
    with closing(connect(path)) as connection:
        connection.execute("BEGIN")
        check_header(path, connection)
        sites = _sites(path, connection)
        columns = _columns(path, connection, len(sites))
        return sites, columns, _values(path, connection, len(columns.number))


def connect(path: Path) -> sqlite3.Connection:
    """Read-only, and with limits: nothing that the file says is executed."""
    # A finished trace is never written again: no lock is taken, and no journal that somebody laid
    # beside it is looked at. A live one is nothing without its log.
    mode = "mode=ro" if path.name.endswith(LIVE) else "immutable=1"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def check_header(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether there are sketches; RecordError where the tables are not those of a trace."""
    ((application,),) = connection.execute("PRAGMA application_id")
    if application != APPLICATION_ID:
        raise RecordError(f"{path} is a database, but not a trace's")
    ((version,),) = connection.execute("PRAGMA user_version")
    if version != VERSION:
        raise version_error(path, version)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchmany(100)
    known = TABLES | SKETCH_TABLES
    for kind, name, statement in rows:
        if name not in known or kind != "table":
            raise RecordError(f"{path} holds a {kind} {name!r}, which no trace has")
        if statement != known[name]:
            raise RecordError(f"{path}: its table {name} has other columns than a trace's")
    there = {name for _, name, _ in rows}
    sketched = bool(SKETCH_TABLES.keys() & there)
    if missing := (known if sketched else TABLES).keys() - there:
        raise RecordError(f"{path}: table {', '.join(sorted(missing))} is missing")
    return sketched


def page_bytes(connection: sqlite3.Connection) -> int:
    """What the pages of the file hold together: nothing in it can be more."""
    ((pages,),) = connection.execute("PRAGMA page_count")
    ((size,),) = connection.execute("PRAGMA page_size")
    return int(pages * size)


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
    most = page_bytes(connection) // _LEAST_BYTES
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
