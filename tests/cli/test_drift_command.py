"""`nondet-probe record --sketch` and `drift` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nondet_probe as ndp
from nondet_probe.records.trace_reader import open_sketches

Call = Callable[..., Any]

TRAIN = """
import torch
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    optimizer.zero_grad()
    model(torch.rand(4, 3)).square().mean().backward()
    optimizer.step()
"""


def recorded(directory: Path, scale: float = 1.0, *, sketch: bool = True) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with ndp.record(directory, level="step", model=model, sketch=sketch):
        for step in range(3):
            optimizer.zero_grad()
            x = torch.rand(4, 3, generator=torch.Generator().manual_seed(step))
            (model(x * (scale if step == 1 else 1.0)).square().mean()).backward()
            optimizer.step()


@pytest.fixture
def traces(user: Path) -> Path:
    recorded(user / "a")
    recorded(user / "b")
    recorded(user / "c", 1.5)
    recorded(user / "plain", sketch=False)
    return user


def test_equal_runs(call: Call, traces: Path) -> None:
    done = call("drift", "a", "b")
    assert (done.returncode, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "b has the sketches of a at all 3 steps compared: no distance was seen." in told
    assert "Equal sketches do not prove equal bits" in told


def test_runs_that_drift(call: Call, traces: Path) -> None:
    done = call("drift", "a", "b", "c", "--html", "out.html")
    assert done.returncode == 1, done.stderr
    told = " ".join(done.stdout.split())
    assert "c differs from a from step 1 on; after step 2 their parameters are" in told
    assert "within 7.25% of the true one" in told
    page = (traces / "out.html").read_text("utf-8")
    assert page.count("<svg") == 1
    assert call("drift", "a", "c", "--html", "out.html").returncode == 2
    assert (traces / "out.html").read_text("utf-8") == page


def test_json(call: Call, traces: Path) -> None:
    done = call("drift", "a", "c", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    (curve,) = found["curves"]
    assert (found["equal"], curve["first"], curve["steps"]) == (False, 1, [0, 1, 2])
    assert curve["distances"][0] == 0
    assert curve["distances"][2] > 0
    assert found["report"] is None
    assert json.loads(call("drift", "a", "b", "--json").stdout)["equal"] is True


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        (["a"], "two runs or more"),
        (["a", "plain"], "plain holds no sketches: record it with nondet-probe record --sketch"),
        (["a", "nothing"], "nothing does not exist"),
        (["a", "work.py"], "is a file; a trace is a folder"),
        (["a", "b", "--html", "no/where.html"], "there is no folder no"),
    ],
)
def test_bad_input(call: Call, traces: Path, runs: list[str], said: str) -> None:
    done = call("drift", *runs)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_script_is_recorded_with_sketches(user: Path) -> None:
    (user / "train.py").write_text(TRAIN)
    options = ["--sketch", "--level", "step", "--out", "run"]
    command = ["-m", "nondet_probe", "record", *options, "--", "train.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=user
    )
    assert done.returncode == 0, done.stderr
    with open_sketches(user / "run") as found:
        assert found.steps == [0, 1, 2]
        assert found.layout(0) == {"Linear.bias": (2,), "Linear.weight": (2, 3)}
