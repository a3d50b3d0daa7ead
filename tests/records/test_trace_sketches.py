"""Sketches in a trace: what is written is read; a trace without them is what it was."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from nondet_probe.errors import RecordError
from nondet_probe.records.trace import Site, TraceMeta
from nondet_probe.records.trace_file import SKETCH_TABLES, database_name
from nondet_probe.records.trace_reader import open_sketches, open_trace
from nondet_probe.records.trace_writer import TraceWriter

DATABASE = database_name(0)
GOLDEN = Path(__file__).parents[1] / "golden" / "traces" / "v1"
SITE = Site("state", "parameter", "net.weight")
SHAPES = {"net.weight": (3, 4), "net.bias": (), "a\udcffb": (2,)}


def buckets(step: int) -> bytes:
    return np.arange(step, step + 4096, dtype="<f8").tobytes()


def writer(directory: Path) -> TraceWriter:
    return TraceWriter(directory, TraceMeta("step", True, None, "", {}, "d", status="complete"))


def write(directory: Path, *, flush_every: int = 1, order: int = 1) -> Path:
    """Steps 0 to 3, of which 2 has none; from step 3 on a further tensor."""
    written = writer(directory)
    written.flush()  # of the setup there is no sketch
    for step in range(4):
        written.add(step, written.site(SITE), None, (step, 0))
        shapes = dict([*SHAPES.items()][::order])
        if step != 2:
            written.sketch(step, "f-1", shapes | ({"z": (5,)} if step == 3 else {}), buckets(step))
        if step % flush_every == 0:
            written.flush()
    written.close()
    return directory


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    with open_sketches(run) as found:
        assert found.steps == [0, 1, 3]
        for step in found.steps:
            assert found.buckets(step).tobytes() == buckets(step)
            assert found.form(step) == "f-1"
        named = {"net.weight": (3, 4), "net.bias": (), "a\\udcffb": (2,)}
        assert found.layout(0) == found.layout(1) == named
        assert found.layout(3) == named | {"z": (5,)}
        assert found.meta.status == "complete"
    assert len(open_trace(run)) == 4


def test_the_bytes_are_those_of_the_sketches(tmp_path: Path) -> None:
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", flush_every=3, order=-1)
    assert (a / DATABASE).read_bytes() == (b / DATABASE).read_bytes()


def test_a_trace_without_sketches_has_no_tables_for_them(tmp_path: Path) -> None:
    written = writer(tmp_path / "run")
    written.add(0, written.site(SITE), None, None)
    written.close()
    connection = sqlite3.connect(tmp_path / "run" / DATABASE)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    connection.close()
    assert not names & SKETCH_TABLES.keys()
    with open_sketches(tmp_path / "run") as found:
        assert found.steps == []


def test_the_golden_trace_has_none() -> None:
    with open_sketches(GOLDEN) as found:
        assert found.steps == []


def test_a_trace_that_is_still_written(tmp_path: Path) -> None:
    written = writer(tmp_path / "run")
    written.sketch(0, "f-1", SHAPES, buckets(0))
    written.flush()
    written.sketch(1, "f-1", SHAPES, buckets(1))
    with open_sketches(tmp_path / "run") as found:
        written.flush()
        written.close()
        assert found.steps == [0], "of one moment"
        assert found.buckets(0).tobytes() == buckets(0)
    with open_sketches(tmp_path / "run") as found:
        assert found.steps == [0, 1]


def test_what_could_not_be_written_is_kept(tmp_path: Path) -> None:
    written = writer(tmp_path / "run")
    lock = sqlite3.connect(next((tmp_path / "run").glob("*.live.sqlite")), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    written._connection.execute("PRAGMA busy_timeout = 0")
    written.sketch(0, "f-1", SHAPES, buckets(0))
    with pytest.raises(RecordError, match="cannot be written"):
        written.flush()
    lock.execute("ROLLBACK")
    lock.close()
    written.close()
    with open_sketches(tmp_path / "run") as found:
        assert found.steps == [0]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DROP TABLE sketched", "table sketched is missing"),
        ("ALTER TABLE sketches ADD COLUMN x", "its table sketches has other columns"),
        ("UPDATE sketched SET name = x'00'", "a sketched name is b"),
        ("UPDATE sketched SET name = 'one'", "a sketched name is 'one'"),
        ("UPDATE sketched SET shape = '[1, -1]'", "a shape is "),
        ("UPDATE sketched SET shape = '[true]'", "a shape is "),
        ("UPDATE sketched SET shape = '{}'", "a shape is "),
        ("UPDATE sketched SET shape = '[1e3]'", "a shape is "),
        ("UPDATE sketched SET shape = ''", "a shape is "),
        ("UPDATE sketched SET shape = 7", "a shape is "),
        ("DELETE FROM sketched WHERE layout = 1", "the sketch of step 3 is none"),
        ("UPDATE sketches SET layout = 9", "the sketch of step 0 is none"),
        ("UPDATE sketches SET format = x'00'", "the sketch of step 0 is none"),
        ("UPDATE sketches SET step = -1 WHERE step = 0", "the sketch of step -1 is none"),
        ("UPDATE sketches SET step = 1 << 40 WHERE step = 3", "the sketch of step 1099"),
        ("UPDATE sketches SET buckets = x'00' WHERE step = 1", r"SHA-256 .*meta\.json"),
    ],
)
def test_a_foreign_database(tmp_path: Path, statement: str, said: str) -> None:
    run = write(tmp_path / "run")
    connection = sqlite3.connect(run / DATABASE)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(RecordError, match=said) as caught:
        open_sketches(run)
    assert str(run / DATABASE) in str(caught.value)


@pytest.mark.parametrize("value", ["x'0011223344'", "'text'", "7", "zeroblob(2000000)"])
def test_a_foreign_sketch_of_a_live_trace(tmp_path: Path, value: str) -> None:
    """Of a live trace there is no checksum."""
    written = writer(tmp_path / "run")
    written.sketch(0, "f-1", SHAPES, buckets(0))
    written.flush()
    written._connection.execute(f"UPDATE sketches SET buckets = {value}")
    with open_sketches(tmp_path / "run") as found, pytest.raises(RecordError, match="damaged"):
        found.buckets(0)
    written.close()


def test_no_trace_at_all(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not exist"):
        open_sketches(tmp_path / "none")
    run = write(tmp_path / "run")
    with pytest.raises(RecordError, match="holds no rank 3; it holds 0"):
        open_sketches(run, 3)
    (run / DATABASE).write_bytes(b"SQLite format 3\0" + bytes(300))
    with pytest.raises(RecordError, match="damaged"):
        open_sketches(run)


def test_the_tables_are_what_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text("utf-8")
    for statement in SKETCH_TABLES.values():
        assert statement in page
