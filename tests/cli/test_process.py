"""`nondet-probe` as a process of its own; the script and `python -m` are the same door."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "command",
    [[str(Path(sys.executable).with_name("nondet-probe"))], [sys.executable, "-m", "nondet_probe"]],
    ids=["script", "module"],
)
def test_exit_codes_reach_the_shell(command: list[str], user: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=user)

    done = run("rerun", "work.py:nondeterministic", "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["record"]["rerun"]["sites"]
    assert run("rerun", "work.py:plane").returncode == 2
    done = run("rerun", "work.py:raising")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_and_an_ascii_terminal_keep_the_exit_code(user: Path) -> None:
    folder = user / "Ünï"
    folder.mkdir()
    (user / "work.py").rename(folder / "work.py")
    line = f"{sys.executable} -m nondet_probe twin Ünï/work.py:plain --steps 2"
    for ending in (" --json | true; exit ${PIPESTATUS[0]}", " > out.txt", " --json > out.json"):
        done = subprocess.run(
            ["bash", "-c", line + ending],
            cwd=user,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert done.returncode == 0, done.stderr
