"""A catalogue grows: rows are merged, and none is lost, whatever else goes wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nondet_probe.errors import RecordError, UsageError
from nondet_probe.records import AuditRecord, Coverage, OpStatus
from nondet_probe.records.catalogue import (
    Row,
    check_catalogue,
    load_catalogue,
    merge_into,
    rows_of,
)

ENVIRONMENT = {
    "machine": {"cpu": "a processor", "gpus": ["a GPU", "a GPU"]},
    "versions": {"torch": "2.13.0"},
}


def audit(*ops: OpStatus, threads: int = 2) -> AuditRecord:
    return AuditRecord(1, 2, 20, threads, [1, 2], [], list(ops), Coverage())


def status(op: str = "aten.add.Tensor", differing: int = 0, **more: object) -> OpStatus:
    return replace(OpStatus(op, "float32[8]", "float32", "cpu", 2, 4, differing), **more)  # type: ignore[arg-type]


def rows(*ops: OpStatus) -> list[Row]:
    return rows_of(audit(*ops), ENVIRONMENT)


def test_rows_say_where_they_were_measured() -> None:
    cpu, gpu = rows(status(), status(device="cuda", differing=1))
    assert (cpu.device, cpu.processor, cpu.torch) == ("cpu", "a processor", "2.13.0")
    assert (cpu.nondet_probe, cpu.threads, cpu.status) == ("unknown", 2, "repeatable")
    assert (gpu.device, gpu.status) == ("a GPU", "nondeterministic")


def test_merging_adds_up_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    merge_into(path, rows(status(other_threads=[1], with_batch=False), status("aten.b")))
    merge_into(path, rows(status(differing=3, unwritten=True, switch="s"), status("aten.a")))
    found = {row.op: row for row in load_catalogue(path)}
    assert list(found) == ["aten.a", "aten.add.Tensor", "aten.b"]
    both = found["aten.add.Tensor"]
    assert (both.calls, both.executions, both.differing) == (4, 8, 3)
    assert both.status == "nondeterministic"
    assert (both.other_threads, both.with_batch, both.unwritten) == ([1], False, True)
    assert both.switch == "s"


def test_another_machine_version_or_class_is_another_row(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    (row,) = rows(status())
    others = [
        replace(row, shapes="float32[16]"), replace(row, torch="2.14.0"),
        replace(row, processor="another"), replace(row, threads=1), replace(row, dtype="float64"),
    ]  # fmt: skip
    merge_into(path, [row])
    merge_into(path, others)
    assert len(load_catalogue(path)) == 6
    before = path.read_bytes()
    merge_into(path, [])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["catalogue.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "truncated or not JSON"),
        ("[]", "is not of format"),
        ('{"format": "nondet_probe.catalogue", "version": 2}', "has version 2"),
        ('{"format": "nondet_probe.catalogue", "version": 1}', "rows: a NoneType"),
        ('{"format": "nondet_probe.catalogue", "version": 1, "rows": [{}]}', "is missing"),
    ],
)
def test_what_is_no_catalogue_is_refused_and_left_alone(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        merge_into(path, rows(status()))
    with pytest.raises(UsageError, match=message):
        check_catalogue(path)
    assert path.read_text() == text


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    check_catalogue(tmp_path / "new.json")
    with pytest.raises(UsageError, match="there is no directory"):
        check_catalogue(tmp_path / "missing" / "new.json")


def test_the_one_in_the_docs_loads() -> None:
    path = Path(__file__).parents[2] / "docs" / "catalogue.json"
    found = load_catalogue(path)
    assert len({row.key for row in found}) == len(found)
    assert any(row.status == "nondeterministic" for row in found)
    assert "rows" in json.loads(path.read_text("utf-8"))
