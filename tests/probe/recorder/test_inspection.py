"""The op call that a trace names is found again in another run, looked at, and its tensors kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import offences  # noqa: F401  # registers its ops
import pytest
import torch
from memory_trace import Memory
from safetensors.torch import load_file

from nondet_probe.bits import bit_equal
from nondet_probe.env import thread_count
from nondet_probe.probe.recorder import recording
from nondet_probe.probe.recorder.inspection import Inspection, Wanted
from nondet_probe.probe.recorder.keeping import ARGUMENTS_FILE, TENSORS_FILE
from nondet_probe.probe.recorder.recording import Recording
from nondet_probe.records.trace import TraceMeta, TraceRecord


class Stop(BaseException):
    pass


def stop() -> None:
    raise Stop


def training(rec: Any, noise: float = 0.0) -> None:
    torch.manual_seed(3)
    model = torch.nn.Linear(4, 4)
    for _ in range(3):
        x = torch.randn(8, 4) + noise
        hidden = torch.ops.ndp_test.wobble(model(x))
        hidden = torch.ops.ndp_test.wobble(hidden.detach())
        rec.step(hidden.sum())


def record(
    monkeypatch: pytest.MonkeyPatch, inspection: Inspection | None, noise: float = 0.0
) -> Memory:
    written: list[Memory] = []

    def writer(directory: Path, meta: TraceMeta) -> Memory:
        written.append(Memory(directory, meta))
        return written[-1]

    monkeypatch.setattr(recording, "TraceWriter", writer)
    with thread_count(1), Recording(Path("nowhere"), level="op", inspection=inspection) as rec:
        training(rec, noise)
    return written[-1]


def second_wobble_of_step_1(memory: Memory) -> tuple[Wanted, TraceRecord]:
    found = [r for r in memory.records if r.step == 1 and "wobble" in r.site.name]
    assert [r.site == found[0].site for r in found] == [True, False]
    return Wanted(1, found[1].site, 0, found[1].inputs), found[1]


def test_the_wanted_call_is_examined_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = record(monkeypatch, None)
    wanted, _ = second_wobble_of_step_1(plain)
    # What comes before it differs in each run, so the digest of its inputs does.
    wanted = Wanted(wanted.step, wanted.site, wanted.earlier, None)
    inspection = Inspection(wanted, tmp_path / "kept", (1, 2), stop)
    with pytest.raises(Stop):
        record(monkeypatch, inspection)
    cause = inspection.cause
    assert cause is not None
    assert cause.differing > 0
    assert cause.element == 0
    assert any("they were not digested" in text for text in cause.missing)
    kept = load_file(tmp_path / "kept" / TENSORS_FILE)
    assert sorted(kept) == ["input.0", "output.0"]
    apart = (kept["input.0"] != kept["output.0"]).flatten()
    assert apart.nonzero().flatten().tolist() == [0]
    told = json.loads((tmp_path / "kept" / ARGUMENTS_FILE).read_text())
    assert told == {"op": "ndp_test.wobble.default", "arguments": {}}


def test_other_inputs_than_those_of_the_trace_are_said_and_nothing_is_concluded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wanted, _ = second_wobble_of_step_1(record(monkeypatch, None))
    inspection = Inspection(wanted, tmp_path / "kept", (), stop)
    with pytest.raises(Stop):
        record(monkeypatch, inspection, noise=1.0)
    assert inspection.cause is not None
    assert inspection.cause.text is None
    assert inspection.cause.executions == 0
    assert "other inputs than run a had" in inspection.cause.missing[0]


def test_operands_are_kept_as_they_were_before_an_op_that_writes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(rec: Any) -> None:
        x = torch.arange(6.0)
        x.add_(1, alpha=2)
        rec.step()

    monkeypatch.setitem(globals(), "training", lambda rec, noise: run(rec))
    (added,) = [r for r in record(monkeypatch, None).records if r.site.name == "aten.add_.Tensor"]
    inspection = Inspection(
        Wanted(added.step, added.site, 0, added.inputs), tmp_path, (), lambda: None
    )
    record(monkeypatch, inspection)
    kept = load_file(tmp_path / TENSORS_FILE)
    assert bit_equal(kept["input.0"], torch.arange(6.0))
    assert bit_equal(kept["output.0"], torch.arange(6.0) + 2)
    told = json.loads((tmp_path / ARGUMENTS_FILE).read_text())
    assert told["arguments"] == {"input.1": "1", "input.alpha": "2"}


def test_tensors_beyond_the_budget_and_what_cannot_be_stored_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nondet_probe.probe.recorder import keeping

    wanted, _ = second_wobble_of_step_1(record(monkeypatch, None))
    wanted = Wanted(wanted.step, wanted.site, 0, None)
    monkeypatch.setattr(keeping, "_BUDGET", 100)
    inspection = Inspection(wanted, tmp_path / "kept", (), lambda: None)
    record(monkeypatch, inspection)
    assert inspection.cause is not None
    assert any("kept at most" in text for text in inspection.cause.missing)
    assert not (tmp_path / "kept").exists()
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    inspection = Inspection(wanted, tmp_path / "file" / "kept", (), lambda: None)
    record(monkeypatch, inspection)
    assert inspection.cause is not None
    assert any("NotADirectoryError" in text for text in inspection.cause.missing)
