"""The kernels under Triton's interpreter: interpreted.py, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed (requirements-dev.txt)")

HERE = Path(__file__).parent


@pytest.mark.skipif(
    triton.__version__.startswith("3.6."),
    reason="the interpreter of Triton 3.6 takes int() of arrays, which numpy 2.4 refuses",
)
def test_the_kernels_interpreted() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "interpreted.py"],
        cwd=HERE,
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 80
    assert "skipped" not in done.stdout
