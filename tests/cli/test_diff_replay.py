"""`diff --replay` as a real process: the op of the first root is found again and explained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from races import struck
from safetensors.torch import load_file

from nondet_probe.probe.recorder.keeping import TENSORS_FILE
from nondet_probe.records.codec import encode
from nondet_probe.records.fault import Fault, Injection

TRAIN = """
import sys
import torch

torch.manual_seed(0)
table = torch.nn.Embedding(4, 4)
weight = table.weight
optimizer = torch.optim.SGD([weight], lr=0.1)
rows = torch.randint(0, 4, (500_000,))
# Addends of one value would give one sum in every order.
noise = torch.randn(500_000, 4)
print("the script's own words")
for step in range(2):
    optimizer.zero_grad()
    loss = (weight[rows] * noise).mean()  # the racing line
    loss.backward()
    optimizer.step()
    if "once" in sys.argv:
        break
"""
RECORD = """
import runpy, sys, torch
from pathlib import Path
from nondet_probe.probe.recorder.recording import Recording
torch.set_num_threads(int(sys.argv[1]))
out, command = Path(sys.argv[2]), sys.argv[3:]
sys.argv = command
with Recording(out, level="op", command=command):
    runpy.run_path(command[0], run_name="__main__")
"""


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of one script, on two threads, whose gradient is added up by atomics."""
    folder = tmp_path_factory.mktemp("replay")
    (folder / "train.py").write_text(TRAIN)
    (folder / "record.py").write_text(RECORD)
    for name in ("a", "b"):
        done = run("record.py", "2", name, "train.py", folder=folder)
        assert done.returncode == 0, done.stderr
    return folder


def replayed(folder: Path, a: str, b: str) -> tuple[dict[str, Any], str]:
    done = run("-m", "nondet_probe", "diff", a, b, "--replay", "--json", folder=folder)
    assert done.returncode == 1, done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_op_is_executed_again_and_its_cause_and_fix_are_told(traces: Path) -> None:
    told, errors = struck(
        lambda: replayed(traces, "a", "b"),
        lambda found: found[0]["cause"]["differing"] or found[0]["cause"]["missing"],
    )
    cause = told["cause"]
    assert cause["missing"] == []
    assert (told["step"], told["phase"], told["inputs_equal"]) == (0, "backward", True)
    assert "index_put" in told["op"]
    assert cause["text"].startswith("parallel float atomics at two or more threads")
    assert cause["differing"] > 0
    assert cause["ulps"] >= 1
    assert f"first at element {cause['element']}" in told["verdict"]
    verified = [one["how"] for one in cause["tried"] if one["verified"]]
    assert "torch.use_deterministic_algorithms(True)" in verified
    assert " removes it (verified: 0 of 20 differ" in told["verdict"]
    # Whichever was faster here; but one thread would be slow for all the rest.
    assert "set_num_threads" in verified[1]
    assert verified[1] not in told["verdict"]
    kept = load_file(traces / cause["kept"] / TENSORS_FILE)
    assert "output.0" in kept
    assert kept["output.0"].shape == (4, 4)
    assert "the script's own words" in errors


def test_a_script_that_went_another_way_is_told(traces: Path) -> None:
    """The replay must not speak of another call."""
    script = traces / "train.py"
    script.write_text(TRAIN.replace("manual_seed(0)", "manual_seed(1)"))
    try:
        told, _ = replayed(traces, "a", "b")
    finally:
        script.write_text(TRAIN)
    assert told["cause"]["text"] is None
    assert "other inputs than run a had" in told["cause"]["missing"][0]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"command": None}, "recorded from code"),
        ({"injected": encode(Injection(Fault("rng", index=0, bit=0)))}, "had a fault injected"),
    ],
)
def test_what_would_be_another_run_is_not_replayed(
    changed: dict[str, Any], reason: str, traces: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        meta = json.loads((traces / name / "meta.json").read_text())
        meta["trace"].update(changed)
        (tmp_path / name).mkdir()
        for file in (traces / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
        (tmp_path / name / "meta.json").write_text(json.dumps(meta))
    told, _ = replayed(tmp_path, "a", "b")
    assert reason in told["cause"]["missing"][0]
    assert told["cause"]["kept"] is None
    assert not (tmp_path / "runs").exists()
