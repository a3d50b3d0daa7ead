"""The kernels in Triton on a GPU, and the same tests interpreted: on_device.py, in a process of its
own, since Triton takes TRITON_INTERPRET when it is imported."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def passed(interpreted: bool, *tests: str) -> int:
    """How many of these tests pass in such a process; all have to."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if interpreted:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    (count,) = re.findall(r"(\d+) passed", done.stdout)
    return int(count)


def needs_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (requirements-dev.txt)")


@pytest.mark.gpu
def test_the_kernels_on_a_gpu() -> None:
    needs_triton()
    assert passed(False, "on_device.py") > 100


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["test_attention", "test_products_on_tensor_cores"])
def test_results_on_a_gpu_are_within_their_bounds(name: str) -> None:
    needs_triton()
    assert passed(False, "interpreted.py", "-k", name) >= 6


def test_the_same_interpreted() -> None:
    needs_triton()
    import triton

    if triton.__version__.startswith("3.6."):
        pytest.skip("the interpreter of Triton 3.6 takes int() of arrays, which numpy 2.4 refuses")
    assert passed(True, "on_device.py") > 40
