"""The main job on the real workloads: what `make demo` shows, with fewer steps."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from nondet_probe.cli import main
from nondet_probe.records import RunRecord, load_run
from nondet_probe.workloads import snippets_hashed


def checkup(
    target: str, steps: int, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, RunRecord]:
    """Exit code and record of `nondet-probe checkup`; two threads, since one cannot race."""
    arguments = ["--threads", "2", "--steps", str(steps), "--out", str(directory)]
    monkeypatch.setattr("sys.argv", ["nondet-probe", "checkup", target, *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0), load_run(directory)


def test_digits_cnn_is_clean_and_its_twin_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, record = checkup("digits-cnn", 40, tmp_path / "run", monkeypatch)
    assert code == 0
    assert record.rerun is not None
    assert record.rerun.sites == []
    assert record.rerun.neutral is True
    assert record.rerun.coverage.rerun > 50
    assert record.twin is not None
    assert record.twin.control_identical
    assert not record.twin.series["control"].any()
    assert record.twin.half_step is not None
    distance = record.twin.series["distance"]
    assert distance[-1] > 1000 * distance[0] > 0
    assert record.twin_fixed is None


def test_snippets_hashed_is_caught_at_its_line_and_its_fix_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, record = checkup("snippets-hashed", 6, tmp_path / "run", monkeypatch)
    assert code == 1
    assert record.rerun is not None
    (site,) = record.rerun.sites
    assert site.op.startswith("aten.index_put")
    assert site.phase == "backward"
    lines, first = inspect.getsourcelines(snippets_hashed.SnippetNet.forward)
    gather = [first + number for number, line in enumerate(lines) if "self.table[rows]" in line]
    assert [site.line] == gather
    assert site.file is not None
    assert Path(site.file).name == "snippets_hashed.py"
    assert record.rerun.verified_fix == "deterministic mode"
    (fix,) = [fix for fix in site.fixes if fix.name == "deterministic mode"]
    assert fix.verified
    assert fix.ratio is not None
    assert record.twin is not None
    assert not record.twin.control_identical
    assert record.twin.growth is None
    assert record.twin_fixed is not None
    assert record.twin_fixed.under == "deterministic mode"
    assert record.twin_fixed.control_identical
