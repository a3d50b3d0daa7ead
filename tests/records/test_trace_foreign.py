"""Traces that are truncated, damaged, of something else or made by an enemy: refused, and why."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.errors import RecordError
from nondet_probe.records import trace_reader
from nondet_probe.records.trace import SETUP, Site, TraceMeta
from nondet_probe.records.trace_file import TABLES, database_name, meta_name
from nondet_probe.records.trace_reader import Trace, open_trace
from nondet_probe.records.trace_writer import TraceWriter

DATABASE, META = database_name(0), meta_name(0)
SITE = Site("forward", "op", "aten.add.Tensor", "net", "model.py", 3)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A sound trace of 300 records."""
    directory = tmp_path / "run"
    meta = TraceMeta("op", True, None, "", {}, "d", status="complete")
    writer = TraceWriter(directory, meta)
    for number in range(300):
        words = number << 50, -number << 40
        writer.add(number // 100 + SETUP, writer.site(SITE), words, words, float(number))
    writer.close()
    return directory


def refused(directory: Path) -> str:
    with pytest.raises(RecordError) as caught:
        open_trace(directory)
    return str(caught.value)


def sql(run: Path, *statements: str) -> None:
    connection = sqlite3.connect(run / DATABASE)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def schema(run: Path, statement: str) -> None:
    sql(run, "PRAGMA writable_schema = ON", statement)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA application_id = 5", "is a database, but not a trace's"),
        ("PRAGMA user_version = 2", "has version 2; this nondet_probe reads version 1"),
        ("DROP TABLE figures", "table figures is missing"),
        ("ALTER TABLE records DROP COLUMN out1", "its table records has other columns"),
        ("ALTER TABLE sites ADD COLUMN x", "its table sites has other columns"),
        ("CREATE TABLE more(x)", "holds a table 'more', which no trace has"),
        ("CREATE INDEX i ON records(step)", "holds a index 'i', which no trace has"),
        (
            "CREATE TRIGGER t AFTER INSERT ON records BEGIN SELECT 1; END",
            "holds a trigger 't', which no trace has",
        ),
        ("DELETE FROM records WHERE number = 7", "are not numbered 0, 1, 2"),
        ("DELETE FROM records WHERE number = 299", "figure 299.0 of record 299"),
        ("UPDATE records SET out0 = 1 WHERE number = 9", r"was altered, .*SHA-256 .*meta\.json"),
        ("UPDATE records SET number = -1 WHERE number = 0", "are not numbered 0, 1, 2"),
        ("UPDATE records SET site = 1 WHERE number = 9", "a step or a site that is not there"),
        ("UPDATE records SET site = -1 WHERE number = 9", "a step or a site that is not there"),
        ("UPDATE records SET step = -2 WHERE number = 9", "a step or a site that is not there"),
        ("UPDATE records SET step = 1 << 40", "a step or a site that is not there"),
        ("UPDATE records SET step = 'x' WHERE number = 9", "cannot be what they seem"),
        ("UPDATE records SET out0 = 'x' WHERE number = 9", "holds what is no number"),
        ("UPDATE records SET in1 = x'00' WHERE number = 9", "holds what is no number"),
        ("UPDATE sites SET phase = 'sleep'", "site 0 is none that a trace can have"),
        ("UPDATE sites SET kind = x'00'", "site 0 is none that a trace can have"),
        ("UPDATE sites SET line = 'x'", "site 0 is none that a trace can have"),
        ("UPDATE sites SET site = 1", "site 1 is none that a trace can have"),
        ("UPDATE sites SET name = CAST(x'ff' AS TEXT)", "Could not decode to UTF-8"),
        ("UPDATE sites SET note = zeroblob(2000000)", "too big"),
        ("UPDATE figures SET value = 'x' WHERE number = 9", "figure 'x' of record 9"),
        ("UPDATE figures SET number = 300 WHERE number = 9", "of record 300"),
    ],
)
def test_a_foreign_database(run: Path, statement: str, said: str) -> None:
    sql(run, statement)
    with pytest.raises(RecordError, match=said) as caught:
        open_trace(run)
    assert str(run / DATABASE) in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        "CREATE VIEW records AS SELECT abs(-9223372036854775808) AS number",
        "CREATE TABLE records(number INTEGER PRIMARY KEY, step AS (abs(-9223372036854775808)))",
    ],
)
def test_nothing_in_a_file_is_executed(run: Path, body: str) -> None:
    """A view or a computed column by the name of a table could call any function."""
    sql(run, "ALTER TABLE records RENAME TO kept", body)
    assert "records" in refused(run) or "kept" in refused(run)
    sql(run, "DROP TABLE kept")
    assert "records" in refused(run)
    assert "overflow" not in refused(run)


def test_a_schema_that_lies(run: Path) -> None:
    """The statement is the right one, the pages behind it are those of another table."""
    schema(run, "UPDATE sqlite_master SET rootpage = 2 WHERE name = 'records'")
    refused(run)


def damage(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def altered(content: bytes) -> bytes:
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return altered


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda content: content[:50], "is truncated or not JSON"),
        (lambda content: b"\xff\xfe", "is truncated or not JSON"),
        (lambda content: b"[" * 100_000, "is truncated or not JSON"),
        (lambda content: b"[]", "is not of format 'nondet_probe.trace'"),
        (damage(lambda it: it.update(format="nondet_probe.run")), "is not of format"),
        (damage(lambda it: it.update(version=2)), "has version 2; .* reads version 1"),
        (damage(lambda it: it.pop("trace")), "field trace is missing"),
        (damage(lambda it: it.update(database_sha256=0)), "was altered, or is of another run"),
        (damage(lambda it: it["trace"].pop("level")), "field level of TraceMeta is missing"),
        (damage(lambda it: it["trace"].update(level="layer")), "level 'layer'; known are step"),
        (damage(lambda it: it["trace"].update(rank="0")), "trace.rank: a str where int is due"),
        (damage(lambda it: it["trace"].update(x=1)), "TraceMeta has no field x"),
    ],
)
def test_a_foreign_meta(run: Path, alter: Callable[[bytes], bytes], said: str) -> None:
    path = run / META
    path.write_bytes(alter(path.read_bytes()))
    with pytest.raises(RecordError, match=f"{path}.*{said}|{said}.*{path}"):
        open_trace(run)


def test_a_meta_of_any_size_is_not_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_reader, "_META_BYTES", 10)
    assert "no trace's has more than 10" in refused(run)


def test_folders_that_are_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nowhere does not exist" in refused(run / "nowhere")
    assert "is a file; a trace is a folder" in refused(run / META)
    (run / META).unlink()
    assert f"{META} is missing" in refused(run)
    (run / DATABASE).unlink()
    assert f"holds no {DATABASE}" in refused(run)
    (run / DATABASE).mkdir()
    shutil.copy(Path(__file__), run / META)
    assert "is truncated or not JSON" in refused(run)

    def forbidden(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", forbidden)
    assert "cannot be read: Permission denied" in refused(run)


def test_a_folder_in_place_of_the_database(run: Path) -> None:
    (run / DATABASE).unlink()
    (run / DATABASE).mkdir()
    assert "is missing, or is no file" in refused(run)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 512, 4096, 4097, 8192, -4096, -1])
def test_a_truncated_database(run: Path, length: int) -> None:
    path = run / DATABASE
    path.write_bytes(path.read_bytes()[:length])
    assert str(path) in refused(run)


def test_something_else_by_the_name(run: Path) -> None:
    (run / DATABASE).write_text("step,op,digest\n" * 1000)
    assert "file is not a database" in refused(run)


def test_random_damage_is_refused_or_harmless(run: Path) -> None:
    """Whatever bytes change, reading ends, and with a trace or a RecordError."""
    rng = random.Random(0)
    path = run / DATABASE
    sound = path.read_bytes()
    outcomes = set()
    for _ in range(400):
        content = bytearray(sound)
        # The beginning of pages, where their structure is, more often than the rest.
        page = rng.randrange(len(sound) // 4096) * 4096
        for _ in range(rng.choice([1, 1, 2, 8])):
            place = page + rng.randrange(rng.choice([16, 110, 4096]))
            content[place] = rng.choice([0, 1, 255, rng.randrange(256)])
        path.write_bytes(content)
        try:
            outcomes.add(isinstance(open_trace(run), Trace))
        except RecordError:
            outcomes.add(False)
    # Not all of them change a byte.
    assert outcomes == {True, False}


def test_reading_leaves_a_finished_trace_as_it_was(run: Path) -> None:
    before = {name: (run / name).read_bytes() for name in os.listdir(run)}
    open_trace(run)
    assert {name: (run / name).read_bytes() for name in os.listdir(run)} == before


def test_a_log_that_somebody_laid_beside_it_is_not_looked_at(run: Path) -> None:
    for suffix in ("-wal", "-journal", "-shm"):
        (run / f"{DATABASE}{suffix}").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" * 600)
    assert len(open_trace(run)) == 300


def test_a_folder_of_any_name(run: Path) -> None:
    other = run.with_name("a?mode=rwc#b %41 é")
    run.rename(other)
    assert len(open_trace(other)) == 300


def test_the_tables_are_what_the_page_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text("utf-8")
    for statement in TABLES.values():
        assert statement.replace(", ", ",").replace(" ", "") in page.replace(", ", ",").replace(
            " ", ""
        ).replace("\n", "")
