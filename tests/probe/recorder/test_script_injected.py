"""`nondet-probe record --inject fault.json -- train.py`: one bit, in an unchanged script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nondet_probe.env import thread_count
from nondet_probe.env.rng import preserved_rng
from nondet_probe.probe.recorder.script import words_of
from nondet_probe.records.fault import Fault, save_fault
from nondet_probe.records.trace_reader import open_trace

TRAIN = """
import sys
import torch
torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
def train():
    for step in range(3):
        optimizer.zero_grad()
        loss = model(torch.rand(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
        print(loss.item().hex(), flush=True)
try:
    train()
except Exception:
    if "keep" not in sys.argv:
        raise
finally:
    print("tidied up", flush=True)
if "code" in sys.argv:
    sys.exit(7)
"""


Done = subprocess.CompletedProcess[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def run(folder: Path, *command: str) -> Done:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        # The package as this test has it, also where it is not installed.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def started(folder: Path, fault: Fault, *words: str) -> Done:
    """Without the command line, whose process would import torch once more."""
    command = words_of(
        ["train.py", *words],
        folder / "run",
        module=False,
        level="step",
        outputs_only=False,
        names=None,
        steps=None,
        inject=fault,
    )
    return run(folder, *command[1:])


def losses(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("0x")]


def test_a_twin_of_a_script_is_a_run_of_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with preserved_rng(), thread_count(1):
        exec(TRAIN, {})
    plain = losses(capsys.readouterr().out)
    fault = Fault("weight", "weight", 2, bit=22, step=1)
    save_fault(fault, folder / "fault.json")
    words = ("--level", "step", "-o", "run", "--inject", "fault.json", "--", "train.py")
    done = run(folder, "-m", "nondet_probe", "record", *words)
    assert done.returncode == 0, done.stderr
    assert [x == y for x, y in zip(plain, losses(done.stdout), strict=True)] == [True, False, False]
    meta = open_trace(folder / "run").meta
    injection = meta.injected
    assert injection is not None
    assert injection.change is not None
    assert (injection.fault, injection.change.name) == (fault, "Linear.weight")
    assert (meta.caveats, meta.status) == ([str(injection)], "complete")
    assert f"nondet-probe: {injection}\n" in done.stderr


def test_what_the_script_does_not_have_ends_it_with_one_line(folder: Path) -> None:
    done = started(folder, Fault("weight", "wieght", 2, bit=22, step=2))
    trace = open_trace(folder / "run")
    assert done.returncode == 2
    # Step 2 begins where step 1 ends, before its loss is printed.
    assert len(losses(done.stdout)) == 1
    assert "tidied up" in done.stdout
    assert "Traceback" not in done.stderr
    assert "nondet-probe: nothing was injected (bit 22 of weight wieght[2], step 2" in done.stderr
    assert "did you mean 'weight'" in done.stderr
    assert (trace.meta.status, trace.meta.exit_code) == ("failed", 2)
    assert trace.meta.failure is not None
    assert trace.meta.failure.startswith("nothing was injected")


def test_a_step_beyond_the_run_is_told_at_its_end(folder: Path) -> None:
    done = started(folder, Fault("rng", "torch cpu", 2, bit=22, step=3))
    trace = open_trace(folder / "run")
    assert done.returncode == 2
    assert len(losses(done.stdout)) == 3
    assert "the run ended after 3 steps, which count from 0" in done.stderr
    assert (trace.meta.status, trace.meta.exit_code) == ("failed", 2)


def test_no_run_without_the_fault_where_nothing_can_be_recorded(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "kept").write_text("mine")
    fault = Fault("weight", "weight", 0, bit=0)
    done = started(folder, fault)
    assert done.returncode == 2
    assert losses(done.stdout) == []
    assert "nothing is recorded" in done.stderr


def test_a_script_that_catches_everything_cannot_hide_it(folder: Path) -> None:
    fault = Fault("weight", "weight", 6, bit=0, step=1)
    done = started(folder, fault, "keep", "code")
    trace = open_trace(folder / "run")
    assert done.returncode == 7
    assert "index 6 is out of range" in done.stderr
    assert (trace.meta.status, trace.meta.exit_code) == ("failed", 7)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"site": "weight", "name": "w", "index": 0}, "bit is missing"),
        ({"site": "wait", "index": 0, "bit": 0}, "did you mean 'weight'"),
        ({"site": "rng", "name": "cuda", "index": 0, "bit": 0}, "unknown random generator 'cuda'"),
        ({"site": "rng", "name": "numpy", "index": 624, "bit": 0}, "index 624 is out of range"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_fault_that_no_run_can_have_is_told_before_the_script_starts(
    fault: dict[str, Any] | None,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from nondet_probe.cli import main

    (tmp_path / "train.py").write_text("raise SystemExit('it ran')")
    if fault is not None:
        document = {"format": "nondet_probe.fault", "version": 1, "fault": fault}
        (tmp_path / "fault.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    words = ["nondet-probe", "record", "--inject", "fault.json", "-o", "out", "--", "train.py"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
