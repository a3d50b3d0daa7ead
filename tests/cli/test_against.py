"""`record --against`: the process of a script is stopped where it differs from a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from nondet_probe.probe.recorder.keeping import TENSORS_FILE
from nondet_probe.records.trace_reader import open_trace

TRAIN = """
import sys
import torch

asked = sys.argv[1:]
torch.manual_seed(0)
table = torch.nn.Embedding(4, 4)
weight = table.weight
optimizer = torch.optim.SGD([weight], lr=0.2 if "rate" in asked else 0.1)
rows = torch.randint(0, 4, (500_000,))
# Addends of one value would give one sum in every order.
noise = torch.randn(500_000, 4)
for step in range(3):
    if "fail" in asked and step == 1:
        sys.exit(7)
    optimizer.zero_grad()
    for _ in range(3):  # that the threads meet in none of them is not to be expected
        if "race" in asked and step == 1:
            loss = (weight[rows] * noise).mean()  # the racing line
        else:
            loss = table(rows[:100]).sum()
        loss.backward()
    print("step", step, "came to its optimizer")
    optimizer.step()
    print("step", step, "is over")
"""
RECORD = """
import runpy, sys
from pathlib import Path
from nondet_probe.probe.recorder.recording import Recording
for out, *command in (["plain", "train.py"], ["racing", "train.py", "race"]):
    sys.argv = command
    with Recording(Path(out), level="op", command=command):
        runpy.run_path(command[0], run_name="__main__")
"""


LINE = (
    TRAIN.splitlines().index("            loss = (weight[rows] * noise).mean()  # the racing line")
    + 1
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traces of the script, as it is and with its racing line, on two threads."""
    folder = tmp_path_factory.mktemp("against")
    (folder / "train.py").write_text(TRAIN)
    (folder / "record.py").write_text(RECORD)
    threads = {**os.environ, "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "record.py"], cwd=folder, env=threads, check=True)
    return folder


Record = Callable[..., Any]


@pytest.fixture
def record(
    call: Callable[..., Any], user: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> Record:
    """record(*options, script=its arguments), in a folder with `plain`, `racing` and `train.py`."""
    for name in ("plain", "racing", "train.py"):
        (user / name).symlink_to(recorded / name)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def run(*options: str, script: tuple[str, ...] = ()) -> Any:
        return call(*("record", "--level", "op", "-o", "run", *options, "--", "train.py", *script))

    return run


def test_an_equal_run_goes_to_its_end(record: Record) -> None:
    done = record("--against", "plain")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 0 came")
    assert "step 2 is over" in done.stdout
    assert "Equal: all " in done.stdout
    assert open_trace(Path("run")).meta.status == "complete"


def test_a_race_stops_it_at_its_op(record: Record) -> None:
    done = record("--against", "racing", script=("race",))
    assert done.returncode == 1, done.stderr
    assert "step 0 is over" in done.stdout
    assert "step 1 came" not in done.stdout
    told = " ".join(done.stdout.split())
    assert f"Step 1, backward (train.py:{LINE}): aten.index_put received bit-identical" in told
    assert "Cause: parallel float atomics at two or more threads" in told
    assert "run/difference" in told
    kept = load_file(Path("run/difference") / TENSORS_FILE)
    assert kept["output.0"].shape == (4, 4)
    meta = open_trace(Path("run")).meta
    assert (meta.status, meta.exit_code, meta.holds_tensors) == ("stopped", None, True)
    assert "Traceback" not in done.stderr


def test_another_rate_is_told_by_name_as_json_and_as_a_page(record: Record) -> None:
    done = record("--against", "plain", "--json", "--html", "page.html", script=("rate",))
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["step"], told["phase"], told["a"], told["b"]) == (0, "optimizer", "plain", "run")
    assert told["op"] == "optimizer 0, group 0: lr"
    assert "lr" in told["verdict"]
    assert "step 0 came" in done.stderr
    assert "step 0 is over" not in done.stderr
    assert told["report"] == "page.html"
    assert "optimizer 0, group 0" in Path("page.html").read_text()


def test_a_script_that_fails_has_its_own_exit_code(record: Record) -> None:
    done = record("--against", "plain", script=("fail",))
    assert done.returncode == 7, done.stderr
    assert "Equal: all " in done.stdout
    assert "run b ends in step 1" in " ".join(done.stdout.split())
    assert open_trace(Path("run")).meta.exit_code == 7


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--against", "plain", "--outputs-only"), "plain was recorded at level op, inputs and"),
        (("--against", "absent"), "against: absent does not exist"),
        (("--against", "train.py"), "train.py is a file; a trace is a folder"),
        (("--against", "plain", "--html", "train.py"), "nothing is ever overwritten"),
        (("--json",), "--html and --json are of the comparison with --against RUN"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_script_starts(
    options: tuple[str, ...], why: str, record: Record
) -> None:
    done = record(*options)
    assert done.returncode == 2
    assert why in done.stderr
    assert not done.stdout
    assert not Path("run").exists()
