"""The study of depth and shape, two cells of it, as a reader runs it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "depth_and_shape.py"
SMALL = (
    *("--depths", "0,1", "--activations", "relu", "--norms", "plain", "--batches", "mini"),
    *("--seeds", "0", "--steps", "40"),
)


def run(*arguments: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True)


def test_two_cells(tmp_path: Path) -> None:
    done = run(*SMALL, out=tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "depth_and_shape.csv").open(newline="") as file:
        linear, hidden = csv.DictReader(file)
    assert (linear["depth"], linear["activation"]) == ("0", "")
    assert (hidden["depth"], hidden["activation"]) == ("1", "relu")
    for row in (linear, hidden):
        assert row["steps"] == "40"
        assert row["fate"] in ("absorbed", "dormant", "growing", "saturated")
        assert bool(row["growth"]) != bool(row["no_growth"])
        assert 0.0 <= float(row["final_distance"]) < 1.0
        assert float(row["accuracy"]) > 0.8
    # The changed bit has spread in both, and does what it does: the same in every run.
    assert float(hidden["final_share"]) > 0.01
    picture = (tmp_path / "depth_and_shape.svg").read_text("utf-8")
    assert picture.startswith("<?xml")
    assert "hidden layers" in picture
    assert "| mini | 1 | relu | - |" in done.stdout


def test_what_it_does_not_know_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run("--depths", "9", out=tmp_path / "none")
    assert done.returncode == 2
    assert "[9]: known are [0, 1, 2, 3, 4, 5, 6, 7, 8]" in done.stderr
    assert not (tmp_path / "none").exists()
