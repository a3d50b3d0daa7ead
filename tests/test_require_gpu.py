"""tests/conftest.py: a test on a GPU where there is none, with --require-gpu and without it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PLANTED = """
import pytest


@pytest.mark.gpu
def test_on_one():
    pass


@pytest.mark.gpu(devices=2)
def test_on_two():
    pass


@pytest.mark.gpu
def test_that_skips_by_itself():
    pytest.skip("no Triton")


def test_on_the_cpu():
    pytest.skip("not today")
"""


def outcome(
    folder: Path, devices: int, why_not: str | None, *options: str
) -> tuple[dict[str, int], str]:
    """How many tests of PLANTED passed, were skipped and failed (in their set-up or later), with a
    torch that sees so many devices; and what was said."""
    (folder / "torch.py").write_text(
        "get_num_threads = are_deterministic_algorithms_enabled = get_default_dtype = int\n"
        f"class cuda:\n    is_available = lambda: {devices} > 0\n"
        f"    device_count = lambda: {devices}\n"
    )
    bits = folder / "nondet_probe" / "bits"
    bits.mkdir(parents=True)
    (bits.parent / "__init__.py").touch()
    (bits / "__init__.py").touch()
    (bits / "device.py").write_text(f"why_not = lambda: {why_not!r}\n")
    (folder / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (folder / "test_planted.py").write_text(PLANTED)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu: see conftest.py\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    last = done.stdout.splitlines()[-1].replace("error", "failed")
    found: dict[str, int] = {}
    for count, kind in re.findall(r"(\d+) (passed|failed|skipped)", last):
        found[kind] = found.get(kind, 0) + int(count)
    assert done.returncode == int("failed" in found), done.stdout
    return found, done.stdout


def test_without_a_gpu_such_tests_are_skipped_and_say_why(tmp_path: Path) -> None:
    found, said = outcome(tmp_path, 0, None)
    assert found == {"skipped": 4}
    assert "torch sees no CUDA device" in said


def test_without_kernels_too(tmp_path: Path) -> None:
    found, said = outcome(tmp_path, 1, "no kernels built")
    assert found == {"skipped": 4}
    assert "no kernels built" in said


@pytest.mark.parametrize(("devices", "why_not"), [(0, None), (2, "no kernels built")])
def test_required_a_skipped_one_is_a_failure(
    tmp_path: Path, devices: int, why_not: str | None
) -> None:
    found, said = outcome(tmp_path, devices, why_not, "--require-gpu")
    assert found == {"failed": 3, "skipped": 1}
    assert f"was not run: Skipped: {why_not or 'torch sees no CUDA device'}" in said


def test_required_and_there(tmp_path: Path) -> None:
    found, said = outcome(tmp_path, 2, None, "--require-gpu")
    assert found == {"passed": 2, "failed": 1, "skipped": 1}
    assert "was not run: Skipped: no Triton" in said


def test_one_gpu_is_all_that_is_required(tmp_path: Path) -> None:
    found, said = outcome(tmp_path, 1, None, "--require-gpu", "-k", "on_")
    assert found == {"passed": 1, "skipped": 2}
    assert "needs 2 GPUs, there are 1" in said
