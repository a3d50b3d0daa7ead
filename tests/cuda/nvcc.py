"""nvcc for the tests: what is on the PATH, or what `make test` installed from PyPI, and what it
makes of a source. A result is kept until csrc or the flags change."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sysconfig
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
OUT = ROOT / "build" / "ptx"
FLAGS = ["-std=c++20", "-O3", "-fmad=false", f"-I{CSRC}"]
ARCHITECTURES = ("80", "90", "100")


@functools.cache
def nvcc() -> Path:
    """Skips the test where there is none, with the reason."""
    from_pypi = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"
    found = shutil.which("nvcc") or shutil.which("nvcc", path=str(from_pypi))
    if found is None:
        pytest.skip("no nvcc on the PATH, and `make test` could not install nvidia-cuda-nvcc")
    return Path(found)


@functools.cache
def _headers() -> str:
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sorted(CSRC.glob("*.hpp")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def ptx_of(source: Path, architecture: str) -> str:
    """The source's PTX for compute_<architecture>, after ptxas has taken it for sm_<architecture>.
    AssertionError with what the compiler said when it does not compile."""
    state = hashlib.sha256((_headers() + source.read_text("utf-8")).encode()).hexdigest()[:16]
    kept = OUT / f"{source.stem}-{architecture}-{state}.ptx"
    if not kept.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        made = kept.with_suffix(f".{os.getpid()}-{threading.get_ident()}.ptx")
        environment = os.environ | {"PATH": f"{nvcc().parent}{os.pathsep}{os.environ['PATH']}"}
        commands = [
            [str(nvcc()), *FLAGS, f"-arch=compute_{architecture}", "-ptx", str(source)],
            ["ptxas", f"-arch=sm_{architecture}", str(made), "-o", os.devnull],
        ]
        for command in (commands[0] + ["-o", str(made)], commands[1]):
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr
        made.rename(kept)
    return kept.read_text("utf-8")
