"""Which files of tests are left out for want of a package, and how the others are run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from _gpu_parts import FAILED, PASSED, UNFINISHED, Done
from _gpu_suite import (
    Modules,
    asks_for_a_gpu,
    files_of_tests,
    is_installed,
    pytest_command,
    run_files,
)

HERE = ("pytest", "torch", "os", "__future__")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "nondet_probe/__init__.py": "",
        "nondet_probe/cli/__init__.py": "from nondet_probe.cli.app import main",
        "nondet_probe/cli/app.py": "import typer\ndef main(): import rich",
        "nondet_probe/ops.py": "import torch",
        "tests/ops/helper.py": "from hypothesis import given",
        "tests/ops/test_plain.py": "import os\nimport torch\nfrom nondet_probe import ops",
        "tests/ops/test_drawn.py": "import helper",
        "tests/cli/test_app.py": "from nondet_probe.cli import app",
        "tests/cli/test_late.py": "def test():\n    import hypothesis",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_a_file_lacks(tree: Path) -> None:
    modules = Modules([tree, tree / "tests" / "ops"], HERE.__contains__)
    lacking = {file.stem: modules.missing(file) for file in files_of_tests(tree / "tests")}
    assert lacking == {
        "test_plain": set(),
        "test_drawn": {"hypothesis"},
        "test_app": {"typer"},
        "test_late": set(),
    }


def test_nothing_is_lacking_here() -> None:
    """Where all packages of requirements-dev.txt are, no file of this repository is left out."""
    root = Path(__file__).parents[2]
    roots = [root, root / "tests" / "ops", root / "tests" / "kernels", root / "benchmarks"]
    modules = Modules(roots, is_installed)
    files = files_of_tests(root / "tests")
    assert len(files) > 100
    assert {file.name: modules.missing(file) for file in files if modules.missing(file)} == {}


def test_files_that_ask_for_a_gpu() -> None:
    root = Path(__file__).parents[1]
    asking = {file.name for file in files_of_tests(root) if asks_for_a_gpu(file)}
    assert {"test_cuda_ops.py", "test_cuda_launches.py", "test_on_device.py"} <= asking
    assert "test_sum.py" not in asking


def test_a_plugin_that_is_not_there_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "-o" not in pytest_command("python", "x.py")
    monkeypatch.setattr("_gpu_suite.is_installed", lambda name: name != "pytest_benchmark")
    command = pytest_command("python", "x.py")
    assert "benchmark" not in command[command.index("-o") + 1]
    assert "--require-gpu" in command


def outcomes(folder: Path, codes: dict[str, str], seconds: float) -> dict[str, str]:
    files = [folder / name for name in codes]
    for name, code in codes.items():
        (folder / name).write_text(code)
    found: dict[str, str] = {}

    def told(file: Path, outcome: str, done: Done) -> None:
        found[file.name] = outcome

    run_files(files, lambda file: [sys.executable, str(file)], folder, seconds, 2, told)
    return found


def test_outcomes(tmp_path: Path) -> None:
    codes = {"a.py": "", "b.py": "raise SystemExit(1)", "c.py": "raise SystemExit(5)"}
    assert outcomes(tmp_path, codes, 60) == {"a.py": PASSED, "b.py": FAILED, "c.py": PASSED}


def test_what_there_is_no_time_for(tmp_path: Path) -> None:
    slow = "import time; time.sleep(60)"
    codes = {"a.py": slow, "b.py": slow, "late.py": ""}
    assert outcomes(tmp_path, codes, 6) == {"a.py": UNFINISHED, "b.py": UNFINISHED}
    assert outcomes(tmp_path, {"late.py": ""}, 1) == {}
