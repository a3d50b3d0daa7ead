"""Run directories: whole or refused with the reason; old versions load for ever."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from nondet_probe.bits.flip import BitChange
from nondet_probe.errors import RecordError
from nondet_probe.records import (
    AuditRecord,
    Condition,
    CostArm,
    CostRecord,
    Coverage,
    Fate,
    Fix,
    Followed,
    Growth,
    MeasuredTensor,
    Onset,
    OpCost,
    OpSite,
    OpStatus,
    Predictions,
    RerunRecord,
    RunRecord,
    Setting,
    TwinRecord,
    load_run,
    save_run,
)
from nondet_probe.records.fault import Fault
from nondet_probe.records.store import ARRAYS_FILE, RECORD_FILE

GOLDEN = Path(__file__).parents[1] / "golden" / "records"


def example() -> RunRecord:
    """A record with every field in use; the values are test data."""
    site = OpSite(
        op="aten.index_put_.default",
        phase="backward",
        module="",
        file="model.py",
        line=12,
        code="rows = table[index]",
        calls=2,
        differing_calls=2,
        executions=10,
        differing=7,
        elements=1048576,
        different_elements=4211,
        max_ulp=3,
        shapes=["f32[16384, 64]"],
        fixes=[Fix("deterministic mode", "torch.use_…(True)", True, 10, 0.2, (0.1, 0.3))],
    )
    status = OpStatus(
        "aten.mm.default", "float32[8, 8]", "float32", "cpu", 2, 40, 1, "raises on request", [1],
        True, False, "deterministic mode", "none",
    )  # fmt: skip
    change = BitChange("weight", 7, 0, "float32", "0x3f800000", "0x3f800001")
    twin = TwinRecord(
        steps=3,
        change=change,
        parameters=["weight"],
        elements=[8],
        control_identical=True,
        growth=Growth(0.1, 0.05, 0.15, 1, 3, 0.9, 6.9),
        tensors=[MeasuredTensor("parameter", "weight", 8, "float32")],
        fate=Fate("saturated", "the distance stayed near a level", 2, 0.5),
        predictions=Predictions(10, 0.1, float("inf"), 3),
        fault=Fault("weight", "we*", seed=3, number=1, bit=0, step=1),
        twins=[
            Followed(change, fate=Fate("growing", "it grew"), evaluation={"accuracy": 0.9}),
            Followed(None, 2, 1, no_growth="the change was absorbed at step 2"),
        ],
        conditions=[Condition("weights", "L2", 1e7, 23.3, 2, 9e6, 8e6, 1e7)],
        no_conditions="why there are no more",
        onset=[Onset(0, [0.5, 0.25], [0.1, None], ["growing", "absorbed"]), Onset(1)],
        series={
            "distance": np.array([1e-9, float("inf"), 1e-8]),
            "max_ulp": np.array([1, 2, 3], dtype=np.int64),
            "param_distance": np.array([[1e-9], [2e-9], [1e-8]]),
            "twins_fan": np.array([[1e-9, 2e-9, float("inf")]] * 3),
            "tensor_ulps": np.array([[[7, 1, 0]], [[7, 1, 0]], [[0, 8, 0]]], dtype=np.uint8),
        },
    )
    return RunRecord(
        command="checkup",
        target="model.py:train",
        seed=0,
        created="2026-01-01T00:00:00+00:00",
        environment={"machine": {"cpus": 2}, "commit": None},
        rerun=RerunRecord(
            5,
            2,
            2,
            [2.3, float("nan")],
            [site],
            Coverage(seen=9, rerun=8),
            suspect_k=20,
            classes=[status],
        ),
        twin=twin,
        cost=CostRecord(
            2,
            2,
            [CostArm("default", [0.1, 0.2], 1.0, (1.0, 1.0))],
            [OpCost("aten.mm.default", 3, {"default": 0.01})],
            False,
            "the bits were the same",
        ),
        audit=AuditRecord(
            1,
            2,
            20,
            2,
            [1, 2],
            [Setting("threads", "2", "2 for all ops", "planted")],
            [status],
            Coverage(seen=3, rerun=3),
            ["a caveat"],
        ),
        seconds={"rerun": 1.5},
    )


def same(a: RunRecord, b: RunRecord) -> bool:
    # repr is bit-faithful for floats and, unlike ==, equal for equal NaN and for arrays.
    for record in (a, b):
        if record.twin is not None:
            record.twin.series = dict(sorted(record.twin.series.items()))
    return repr(a) == repr(b)


def test_round_trip(tmp_path: Path) -> None:
    save_run(example(), tmp_path / "run")
    back = load_run(tmp_path / "run")
    assert same(back, example())
    assert back.twin is not None
    assert back.twin.series["max_ulp"].dtype == np.int64


def test_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_run(example(), tmp_path / name)
    for name in (RECORD_FILE, ARRAYS_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    save_run(example(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [ARRAYS_FILE, RECORD_FILE]


def test_a_failed_write_leaves_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_run(example(), tmp_path)

    def no_space(source: str, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="no space"):
        save_run(RunRecord("rerun", "other", 1, "", {}), tmp_path)
    assert same(load_run(tmp_path), example())
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("keep", [0, 1, 100, -2])
def test_truncated_record_is_refused(tmp_path: Path, keep: int) -> None:
    save_run(example(), tmp_path)
    path = tmp_path / RECORD_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordError, match="truncated or not JSON"):
        load_run(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_truncated_arrays_are_refused(tmp_path: Path, keep: int) -> None:
    save_run(example(), tmp_path)
    path = tmp_path / ARRAYS_FILE
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordError, match="SHA-256"):
        load_run(tmp_path)


def test_arrays_of_another_run_are_refused(tmp_path: Path) -> None:
    other = example()
    assert other.twin is not None
    other.twin.series["distance"][0] = 2e-9
    save_run(example(), tmp_path / "a")
    save_run(other, tmp_path / "b")
    (tmp_path / "b" / ARRAYS_FILE).replace(tmp_path / "a" / ARRAYS_FILE)
    with pytest.raises(RecordError, match="of another run"):
        load_run(tmp_path / "a")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=f"holds no {RECORD_FILE}"):
        load_run(tmp_path)
    save_run(example(), tmp_path)
    (tmp_path / ARRAYS_FILE).unlink()
    with pytest.raises(RecordError, match=f"holds no {ARRAYS_FILE}"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "something else"}, "is not of format 'nondet_probe.run'"),
        ({"version": 5}, "has version 5; this nondet_probe reads versions 1 to 4"),
        ({"version": None}, "has version None"),
    ],
)
def test_unknown_format_or_version_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_run(example(), tmp_path)
    path = tmp_path / RECORD_FILE
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}))
    with pytest.raises(RecordError, match=message):
        load_run(tmp_path)


def test_other_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / RECORD_FILE).write_text("[1, 2]")
    with pytest.raises(RecordError, match="not of format"):
        load_run(tmp_path)


@pytest.mark.parametrize("directory", sorted(GOLDEN.glob("v*/*")), ids=lambda path: path.name)
def test_records_of_every_released_version_load(directory: Path) -> None:
    assert load_run(directory).command


def test_every_version_has_golden_records() -> None:
    assert [path.name for path in sorted(GOLDEN.glob("v*"))] == ["v1", "v2", "v3", "v4"]


def test_what_version_2_added_is_what_version_1_says_by_its_silence() -> None:
    record = load_run(GOLDEN / "v1" / "nondeterministic")
    assert record.audit is None
    assert record.rerun is not None
    assert (record.rerun.suspect_k, record.rerun.of_script) == (None, False)
    assert record.cost is None or (record.cost.ops, record.cost.fill_needed) == ([], None)


@pytest.mark.parametrize("directory", ["v1/nondeterministic", "v2/whole"])
def test_what_version_3_added_is_what_older_ones_say_by_their_silence(directory: str) -> None:
    record = load_run(GOLDEN / directory)
    assert record.twin is not None
    assert (record.twin.tensors, record.twin.fate, record.twin.predictions) == ([], None, None)
    assert record.twin.no_predictions == "not recorded by this version"


def test_what_version_4_added_is_what_older_ones_say_by_their_silence() -> None:
    twin = load_run(GOLDEN / "v3" / "whole").twin
    assert twin is not None
    assert (twin.fault, twin.twins, twin.conditions, twin.onset) == (None, [], [], [])
    assert twin.no_conditions == "not recorded by this version"


def test_a_fault_that_cannot_be_is_a_record_that_cannot_be(tmp_path: Path) -> None:
    save_run(example(), tmp_path)
    path = tmp_path / RECORD_FILE
    document = json.loads(path.read_text("utf-8"))
    document["record"]["twin"]["fault"]["site"] = "wieght"
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=r"a fault that cannot be: .*did you mean 'weight'"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("version", "part", "field", "kind"),
    [
        (2, "rerun", "suspect_k", "RerunRecord"),
        (3, "rerun", "suspect_k", "RerunRecord"),
        (3, "twin", "fate", "TwinRecord"),
        (4, "twin", "twins", "TwinRecord"),
    ],
)
def test_a_field_that_a_version_has_is_not_filled_in_there(
    tmp_path: Path, version: int, part: str, field: str, kind: str
) -> None:
    save_run(example(), tmp_path)
    path = tmp_path / RECORD_FILE
    document = json.loads(path.read_text("utf-8"))
    document["version"] = version
    del document["record"][part][field]
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=f"{field} of {kind} is missing"):
        load_run(tmp_path)
