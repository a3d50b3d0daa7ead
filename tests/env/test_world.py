"""The snapshot is JSON, and says what is true of this process."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from nondet_probe.env import available_cpus, snapshot, thread_count


def test_it_is_json_and_true() -> None:
    with thread_count(3):
        found = snapshot()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["versions"]["torch"] == str(torch.__version__)
    assert found["switches"]["torch.get_num_threads"] == 3
    assert found["machine"]["cpus"] == available_cpus() >= 1
    assert found["machine"]["cpu"]


def test_commit_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Also inside a checkout that holds the temporary directory: look no further up.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert snapshot()["commit"] is None

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "train.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    assert snapshot()["commit"] == {"id": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "train.py").write_text("x = 2\n")
    assert snapshot()["commit"]["dirty"] is True
