"""`nondet-probe rerun | audit -- train.py`: a script is watched for some steps, then stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.cli import script_cost
from nondet_probe.env.host_memory import PATTERNS
from nondet_probe.records import load_run
from nondet_probe.records.catalogue import load_catalogue

Call = Callable[..., Any]

TRAIN = """
import os
import sys
import threading
import torch

@torch.library.custom_op("script_test::unstable", mutates_args=())
def unstable(x: torch.Tensor) -> torch.Tensor:
    unstable.calls += 1
    return torch.nextafter(x, x + 1) if unstable.calls % 4 < 2 else x.clone()

unstable.calls = 0
unstable.register_autograd(lambda context, gradient: gradient)

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
if "late" in sys.argv:
    torch.use_deterministic_algorithms(True)
    os.environ["OMP_NUM_THREADS"] = "3"
if "thread" in sys.argv:
    threading.Thread(target=threading.Event().wait).start()
try:
    for step in range(6):
        x = torch.randn(32, 8)
        if "unstable" in sys.argv:
            x = unstable(x)  # the planted line
        loss = model(x).square().mean()
        if "fill" in sys.argv:
            loss = loss * torch.empty(5000, dtype=torch.uint8)[4000].float()
        optimizer.zero_grad()
        loss.backward()
        if "raise" in sys.argv and step == 1:
            raise ZeroDivisionError("the user's bug")
        optimizer.step()
        print("step", step, flush=True)
finally:
    print("tidied up", flush=True)
"""


@pytest.fixture(autouse=True)
def train(user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = user / "train.py"
    script.write_text(TRAIN)
    # The package as this test has it, also where it is not installed.
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    return script


def only_run(user: Path) -> Path:
    (directory,) = (user / "runs").iterdir()
    return directory


def test_a_script_is_watched_and_stopped_after_its_steps(call: Call, user: Path) -> None:
    done = call("rerun", "--steps", "2", "--threads", "1", "--", "train.py", "thread", "--lr", "3")
    assert done.returncode == 0, done.stderr
    # It leaves a thread behind that would wait for ever. The hook stops it inside of the second
    # step; what it leaves open is tidied up.
    assert "step 0" in done.stdout
    assert "step 1" not in done.stdout
    assert "tidied up" in done.stdout
    record = load_run(only_run(user))
    assert record.target == "train.py thread --lr 3"
    assert record.rerun is not None
    assert (record.rerun.k, record.rerun.suspect_k, record.rerun.steps) == (2, 20, 2)
    assert record.rerun.of_script
    assert record.rerun.threads == 1
    assert record.rerun.coverage.rerun > 30
    assert record.rerun.coverage.not_covered == {}


def test_what_is_planted_in_a_script_is_found_on_its_line(call: Call) -> None:
    done = call("rerun", "--json", "--k", "4", "train.py", "unstable")
    assert done.returncode == 1, done.stderr
    # Nothing but the JSON, whatever the script prints.
    found = json.loads(done.stdout)
    assert "tidied up" in done.stderr
    (site,) = found["record"]["rerun"]["sites"]
    assert site["op"] == "script_test.unstable.default"
    assert site["code"].endswith("# the planted line")
    assert site["executions"] == 8
    assert found["record"]["rerun"]["suspect_k"] is None


def test_a_script_that_fails_keeps_its_record(call: Call, user: Path) -> None:
    done = call("rerun", "-m", "--", "train", "raise")
    assert done.returncode == 3, done.stderr
    record = load_run(only_run(user))
    assert record.target == "-m train raise"
    told = "the script raised ZeroDivisionError: the user's bug after 1 optimizer step"
    assert record.failure == f"rerun: {told}"
    assert record.rerun is not None
    assert record.rerun.coverage.rerun > 10
    assert "Traceback" in done.stderr


def test_an_audit_of_a_script_with_late_switches(call: Call, user: Path) -> None:
    done = call("audit", "--steps", "1", "--catalogue", "cat.json", "--", "train.py", "late")
    assert done.returncode == 1, done.stderr
    record = load_run(only_run(user))
    assert record.audit is not None
    assert record.audit.steps == 1
    one, other = record.audit.findings
    assert one.startswith("torch.use_deterministic_algorithms was switched on after ")
    assert other == "OMP_NUM_THREADS was set too late: it is read when torch is imported"
    assert "Requests not in force" in done.stdout
    assert "does not have what it asks for" in done.stdout
    assert "What the bits of each op depend on" in (only_run(user) / "report.html").read_text()
    rows = load_catalogue(user / "cat.json")
    assert {row.op for row in record.audit.ops} == {row.op for row in rows}


def test_the_cost_of_a_script(call: Call, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two of the four ways, and two of the three contents of memory: a process each.
    names = ["default", "reproducible"]
    monkeypatch.setattr(script_cost, "_ARMS", {name: script_cost._ARMS[name] for name in names})
    monkeypatch.setattr("nondet_probe.probe.unwritten.CONTENTS", (PATTERNS[0], None))
    done = call("cost", "--steps", "2", "--threads", "1", "--", "train.py", "fill")
    assert done.returncode == 0, done.stderr
    # One process's words, though the script ran in several.
    assert done.stdout.count("step 0") == 1
    record = load_run(only_run(user))
    cost = record.cost
    assert cost is not None
    assert [arm.name for arm in cost.arms] == names
    assert [(len(arm.seconds), arm.error) for arm in cost.arms] == [(2, None)] * 2
    ops = {op.op: op for op in cost.ops}
    assert set(ops["aten.addmm.default"].seconds) == set(names)
    assert ops["aten.addmm.default"].calls == 2
    # The script asks for memory that it never writes, and multiplies its loss by it.
    assert cost.fill_needed is True
    told = " ".join(done.stdout.split())
    assert "It is needed: the bits depend on what new memory holds" in told
    assert "Time in ops" in (only_run(user) / "report.html").read_text()


def test_a_script_that_fails_in_the_default_way_has_no_cost(
    call: Call, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_cost, "_ARMS", {"default": (False, False)})
    done = call("cost", "--", "train.py", "raise")
    assert done.returncode == 3
    record = load_run(only_run(user))
    assert record.failure is not None
    assert record.failure.startswith("cost: the script raised ZeroDivisionError")


def test_a_catalogue_that_is_none_is_refused_first(call: Call, user: Path) -> None:
    (user / "cat.json").write_text("{}")
    done = call("audit", "--catalogue", "cat.json", "work.py:plain")
    assert done.returncode == 2
    assert "is not of format 'nondet_probe.catalogue'; name another file" in done.stderr
    assert (user / "cat.json").read_text() == "{}"
    assert not (user / "runs").exists()


def test_an_audit_and_a_sweep_of_a_workload(call: Call, user: Path) -> None:
    done = call("audit", "work.py:nondeterministic", "--json", "--threads", "1", "--out", "a")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert "cli_test.unstable" in found["verdict"] or "unstable gave" in found["verdict"]
    assert found["record"]["audit"]["ops"][0]["op"] == "cli_test.unstable.default"
    done = call("audit", "work.py:plain", "--threads", "1", "--out", "b")
    assert done.returncode == 0, done.stderr
    done = call("rerun", "work.py:plain", "--sweep", "--threads", "1", "--out", "c")
    assert done.returncode == 0, done.stderr
    rerun = load_run(user / "c").rerun
    assert rerun is not None
    assert {row.op for row in rerun.classes} >= {"aten.addmm.default", "aten.tanh.default"}


def test_a_script_that_ends_its_process_at_once(call: Call, train: Path) -> None:
    train.write_text("import os\nos._exit(0)\n")
    done = call("rerun", "--", "train.py")
    assert done.returncode == 3
    assert "ended at once with exit code 0, before anything could be written down" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "trane.py"], "no such script: trane.py; did you mean train.py"),
        (["--", "examples/train_byte.py"], "; did you mean examples/train_bytes.py?\n"),
        (["--", "elsewhere/train.py"], "no such script: elsewhere/train.py\n"),
        (["--seed", "3", "--", "train.py"], "--seed is for workloads"),
        (["--", "work.py:plain", "--lr"], "a workload takes no arguments"),
        (["--memory", "0", "--", "train.py"], "--memory 0: at least 1 MiB"),
        (["--steps", "0", "--", "train.py"], "steps=0: at least 1"),
        (["--k", "1", "--", "train.py"], "k=1: at least 2"),
    ],
)
def test_bad_requests(call: Call, user: Path, arguments: list[str], message: str) -> None:
    (user / "examples").mkdir()
    (user / "examples" / "train_bytes.py").touch()
    done = call("rerun", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (user / "runs").exists()
