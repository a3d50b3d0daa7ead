"""tests/conftest.py: a test that leaves something behind fails, and compiled code is dropped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PLANTED = """
import warnings

import torch


def test_leaves_a_thread_count():
    torch.set_num_threads(torch.get_num_threads() + 1)


def test_leaves_deterministic_algorithms():
    torch.use_deterministic_algorithms(True)


def test_leaves_a_dtype():
    torch.set_default_dtype(torch.float64)


def test_sets_nothing():
    torch.ones(1)


def test_compiles():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.compile(torch.sin, backend="eager")(torch.zeros(1)) == 0
    assert torch._dynamo.eval_frame.cached_backends


def test_finds_nothing_compiled():
    assert not torch._dynamo.eval_frame.cached_backends
"""


def test_what_a_test_leaves_behind(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "test_planted.py").write_text(PLANTED)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: see conftest.py\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    told = set(re.findall(r"^ERROR test_planted\.py::(\w+)", done.stdout, re.MULTILINE))
    assert told == {
        "test_leaves_a_thread_count",
        "test_leaves_deterministic_algorithms",
        "test_leaves_a_dtype",
    }, done.stdout
    assert "the test leaves other settings than it found" in done.stdout
    assert "6 passed, 3 errors" in done.stdout
