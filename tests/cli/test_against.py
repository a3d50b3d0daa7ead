"""`record --against` as a real process: a script is stopped where it differs from a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        # Two threads, as a race needs, and as said before torch starts.
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )


def record(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run("-m", "nondet_probe", "record", "--level", "op", *words, folder=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With recordings of the script, as it is and with its racing line."""
    made = tmp_path_factory.mktemp("against")
    (made / "train.py").write_text(TRAIN)
    (made / "record.py").write_text(RECORD)
    done = run("record.py", folder=made)
    assert done.returncode == 0, done.stderr
    return made


def test_an_equal_run_goes_to_its_end(folder: Path) -> None:
    done = record("--against", "plain", "-o", "same", "--", "train.py", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 0 came")
    assert "step 2 is over" in done.stdout
    assert "Equal: all " in done.stdout
    assert open_trace(folder / "same").meta.status == "complete"


def test_a_race_stops_it_at_its_op(folder: Path) -> None:
    done = record("--against", "racing", "-o", "raced", "--", "train.py", "race", folder=folder)
    assert done.returncode == 1, done.stderr
    assert "step 0 is over" in done.stdout
    assert "step 1 came" not in done.stdout
    told = " ".join(done.stdout.split())
    assert f"Step 1, backward (train.py:{LINE}): aten.index_put received bit-identical" in told
    assert "Cause: parallel float atomics at two or more threads" in told
    kept = load_file(folder / "raced" / "difference" / TENSORS_FILE)
    assert kept["output.0"].shape == (4, 4)
    meta = open_trace(folder / "raced").meta
    assert (meta.status, meta.exit_code, meta.holds_tensors) == ("stopped", None, True)
    assert "Traceback" not in done.stderr


def test_another_rate_is_told_by_name_as_json_and_as_a_page(folder: Path) -> None:
    done = record(
        *("--against", "plain", "-o", "rate", "--json", "--html", "rate.html"),
        *("--", "train.py", "rate"),
        folder=folder,
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["step"], told["phase"], told["a"], told["b"]) == (0, "optimizer", "plain", "rate")
    assert any("settings differ in this step: a learning rate" in one for one in told["warnings"])
    assert "step 0 came" in done.stderr
    assert "step 0 is over" not in done.stderr
    assert "optimizer" in (folder / "rate.html").read_text()


def test_a_script_that_fails_has_its_own_exit_code(folder: Path) -> None:
    done = record("--against", "plain", "-o", "failed", "--", "train.py", "fail", folder=folder)
    assert done.returncode == 7, done.stderr
    assert "Equal: all " in done.stdout
    assert "run b ends in step 1" in " ".join(done.stdout.split())
    assert open_trace(folder / "failed").meta.exit_code == 7


def test_what_cannot_be_compared_is_refused_before_the_script_starts(folder: Path) -> None:
    for words, why in (
        (("--against", "plain", "--outputs-only"), "plain was recorded at level op, inputs and"),
        (("--against", "absent"), "against: absent does not exist"),
        (("--against", "plain", "--html", "train.py"), "nothing is ever overwritten"),
        (("--json",), "--html and --json are of the comparison with --against RUN"),
    ):
        done = record(*words, "-o", "refused", "--", "train.py", folder=folder)
        assert done.returncode == 2
        assert why in done.stderr
        assert "came to its optimizer" not in done.stdout
        assert not (folder / "refused").exists()
