"""What was requested and what is in force; every kind of being too late is planted."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import offences
import pytest
import torch
from rerun_workloads import CLEAN

from nondet_probe.env import deterministic_algorithms, thread_count
from nondet_probe.env.imports import at_first_import
from nondet_probe.env.rng import RngState
from nondet_probe.env.switches import environment_at_start
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.audit import audit
from nondet_probe.probe.census import Census
from nondet_probe.probe.requests import Requests
from nondet_probe.probe.rerun import rerun
from nondet_probe.probe.watch import Rerun
from nondet_probe.records import AuditRecord
from nondet_probe.records.audit import OpStatus, Setting
from nondet_probe.workload import Workload


def settling() -> Any:
    """A switch that moves the random streams, as no switch should."""
    torch.rand(3)
    return thread_count(1)


DETERMINISTIC = "torch.use_deterministic_algorithms"


def watched(body: Callable[[], object], rows: list[OpStatus] | None = None) -> dict[str, Setting]:
    requests = Requests()
    with Rerun(2, watcher=requests.look) as watch:
        body()
    seen = watch.record().coverage.seen
    return {setting.name: setting for setting in requests.settings(seen, rows or [])}


def test_nothing_requested_is_nothing_found() -> None:
    found = watched(lambda: torch.ones(3) + 1)
    assert [setting.finding for setting in found.values() if setting.finding] == []
    assert found[DETERMINISTIC].requested == "not requested"
    assert found["TF32"].in_force == "no CUDA in this run"


@pytest.fixture
def switches() -> Any:
    with deterministic_algorithms(False, fill=True), thread_count(2):
        yield


@pytest.mark.usefixtures("switches")
def test_a_switch_set_after_ops_is_too_late_and_before_them_is_not() -> None:
    def late() -> None:
        torch.ones(3)
        torch.ones(3)
        torch.use_deterministic_algorithms(True)
        torch.ones(3)

    def early() -> None:
        torch.use_deterministic_algorithms(True)
        torch.ones(3)

    found = watched(late)[DETERMINISTIC]
    assert found.in_force == "off for the first 2 op calls, then on"
    assert found.finding is not None
    assert "switched on after 2 of 3 op calls" in found.finding
    torch.use_deterministic_algorithms(False)
    found = watched(early)[DETERMINISTIC]
    assert (found.requested, found.in_force, found.finding) == ("on", "on", None)


@pytest.mark.usefixtures("switches")
def test_a_switch_taken_back() -> None:
    def body() -> None:
        torch.use_deterministic_algorithms(True)
        torch.ones(3)
        torch.use_deterministic_algorithms(False)
        torch.ones(3)

    finding = watched(body)[DETERMINISTIC].finding
    assert finding == f"{DETERMINISTIC} was switched off after 1 of 2 op calls"


@pytest.mark.usefixtures("switches")
def test_threads_that_change_in_between() -> None:
    def body() -> None:
        torch.ones(3)
        torch.set_num_threads(1)
        torch.ones(3)

    finding = watched(body)["threads"].finding
    assert finding is not None
    assert "changed from 2 to 1 after 1 op calls" in finding


@pytest.mark.usefixtures("switches")
def test_warn_only_that_keeps_a_nondeterministic_kernel() -> None:
    row = OpStatus("aten.x.default", "", "float32", "cpu", 1, 20, 3)
    refused = OpStatus("aten.put_.default", "", "float32", "cpu", declared="raises on request")
    quiet = OpStatus("aten.add.Tensor", "", "float32", "cpu")

    def warning() -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.ones(3)

    def strict() -> None:
        torch.use_deterministic_algorithms(True)
        torch.ones(3)

    finding = watched(warning, [row, refused])[DETERMINISTIC].finding
    kept = "aten.x.default, aten.put_.default"
    assert finding == f"warn_only keeps the nondeterministic kernel of {kept}"
    assert watched(warning, [quiet])[DETERMINISTIC].finding is None
    finding = watched(strict, [row, quiet])[DETERMINISTIC].finding
    assert finding == f"{DETERMINISTIC} is on, and yet aten.x.default gave other bits"


@pytest.mark.parametrize(
    ("name", "ops", "finding"),
    [
        ("OMP_NUM_THREADS", 0, "read when torch is imported"),
        ("PYTHONHASHSEED", 0, "Python reads it when it starts"),
        ("MKL_CBWR", 1, "1 op calls had run"),
        ("MKL_CBWR", 0, None),
        ("CUBLAS_WORKSPACE_CONFIG", 1, None),  # no CUDA: without effect, not late
        ("FLASH_ATTENTION_DETERMINISTIC", 1, None),  # read at every call
    ],
)
def test_variables_that_come_too_late(
    monkeypatch: pytest.MonkeyPatch, name: str, ops: int, finding: str | None
) -> None:
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("nondet_probe.probe.requests.environment_at_start", dict)

    def body() -> None:
        for _ in range(ops):
            torch.ones(3)
        monkeypatch.setenv(name, "1")
        torch.ones(3)

    found = watched(body)[name]
    assert found.requested == "1"
    assert (found.finding is None) == (finding is None)
    assert finding is None or finding in str(found.finding)


def test_a_variable_set_before_the_program_imports_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("nondet_probe.probe.requests.environment_at_start", dict)
    requests = Requests()
    with at_first_import("torch", requests.torch_imported):
        import json  # noqa: F401

        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        import torch.nn

        monkeypatch.setenv("MKL_NUM_THREADS", "3")
        import torch.optim  # noqa: F401
    found = {setting.name: setting for setting in requests.settings(0, [])}
    assert found["OMP_NUM_THREADS"].finding is None
    assert "set before torch is imported" in found["OMP_NUM_THREADS"].in_force
    assert found["MKL_NUM_THREADS"].finding is not None


def test_the_import_is_put_back_whatever_happens() -> None:
    import builtins

    before = builtins.__import__
    with pytest.raises(ZeroDivisionError), at_first_import("torch", lambda: None):
        _ = 1 / 0
    assert builtins.__import__ is before


def test_the_environment_at_the_start_is_not_what_was_set_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = environment_at_start()
    monkeypatch.setenv("MKL_CBWR", "planted")
    assert environment_at_start() == before
    assert "planted" in os.environ["MKL_CBWR"]


@pytest.mark.usefixtures("one_thread")
def test_an_audit_of_a_clean_workload() -> None:
    torch.manual_seed(7)
    before = RngState.capture()
    record = audit(CLEAN["cnn"], steps=1)
    assert before.same_as(RngState.capture())
    assert record.steps == 1
    assert all(row.repeatable for row in record.ops)
    assert record.findings == []
    assert record.coverage.not_covered == {}
    assert {1, 2} <= set(record.thread_counts)
    ops = {row.op for row in record.ops}
    assert "aten.convolution.default" in ops
    assert "aten.uniform_.default" in ops  # the building of the model too
    assert [row.error for row in record.ops if row.error] == []


@pytest.mark.parametrize("name", ["cnn", "transformer, Adam foreach", "recurrent, embedding"])
def test_asking_changes_no_bit_of_the_training(name: str) -> None:
    with thread_count(2):
        record = rerun(CLEAN[name], steps=2, census=Census([1, 2, 3], {"planted": settling}))
    assert record.neutral is True
    assert len(record.classes) > 5


def planted(seed: int) -> Workload:
    model = torch.nn.Linear(4, 2)
    return Workload(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        [torch.ones(3, 4)] * 2,
        lambda m, b: offences.wobble(m(b)).sum(),
    )


@pytest.mark.usefixtures("one_thread")
def test_what_is_planted_comes_first() -> None:
    row = audit(planted, steps=1).ops[0]
    assert row.op == "ndp_test.wobble.default"
    assert (row.executions, row.differing) == (20, 19)
    assert (row.switch, row.unwritten, row.other_threads) == (None, None, None)


@pytest.mark.usefixtures("one_thread")
def test_failures_and_bad_arguments() -> None:
    with pytest.raises(UsageError, match="steps=0"):
        audit(planted, steps=0)
    with pytest.raises(RunFailedError, match="batches ran out at step 2") as caught:
        audit(planted, steps=3)
    assert isinstance(caught.value.partial, AuditRecord)
    assert caught.value.partial.steps == 2
