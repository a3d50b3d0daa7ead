"""CUB's sums to compare with: cub_sum.cu, built against headers that are not in this repository.

CCCL 3.1 or newer is looked for in the folder that NONDET_PROBE_CCCL names (it holds `cub/`), else
in an installed nvidia-cuda-cccl (PyPI), else beside nvcc, where that of CUDA 13.0 is too old.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["LEVELS", "Cub", "cub", "headers"]

LEVELS = ("not_guaranteed", "run_to_run", "gpu_to_gpu")
"""CUB's words for what a sum promises."""

_SOURCE = Path(__file__).parent / "cub_sum.cu"
_OUT = Path(__file__).parents[1] / "build" / "cub"
_OLDEST = (3, 1)
_NAMED = "NONDET_PROBE_CCCL"


class Cub:
    """version: of CCCL, such as "3.5.0"."""

    def __init__(self, library: Path, version: str) -> None:
        self._library = ctypes.CDLL(str(library))
        self.version = version

    def sum(self, x: Tensor, level: str) -> Tensor:
        """The sum of a contiguous float32 or float64 tensor on cuda, 0-d, on its current stream."""
        result = x.new_empty(())
        stream = torch.cuda.current_stream(x.device).cuda_stream
        error = getattr(self._library, f"cub_{level}")(
            int(x.dtype is torch.float64),
            ctypes.c_void_p(x.data_ptr()),
            ctypes.c_void_p(result.data_ptr()),
            ctypes.c_int64(x.numel()),
            ctypes.c_void_p(stream),
        )
        if error:
            raise RuntimeError(f"CUB's sum ({level}) failed with CUDA error {error}")
        return result


def cub(architecture: str, seconds: float) -> Cub | str:
    """CUB's sums for an architecture such as "90", or why there are none. seconds: to build in."""
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if nvcc is None:
        return "there is no nvcc"
    found = headers(_places(Path(nvcc)))
    if isinstance(found, str):
        return found
    folder, version = found
    library = _OUT / f"cub-{version}-sm{architecture}.so"
    if not library.exists() or library.stat().st_mtime < _SOURCE.stat().st_mtime:
        _OUT.mkdir(parents=True, exist_ok=True)
        command = [nvcc, "-std=c++20", "-O3", f"-arch=sm_{architecture}", f"-I{folder}"]
        command += ["-shared", "-Xcompiler=-fPIC", str(_SOURCE), "-o", str(library)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"nvcc took more than {seconds:.0f} s over cub_sum.cu"
        if done.returncode:
            line = next((line for line in done.stderr.splitlines() if "error" in line), "no words")
            return f"nvcc did not take cub_sum.cu: {line[:200]}"
    return Cub(library, version)


def headers(places: list[Path]) -> tuple[Path, str] | str:
    """The first of these folders that holds a CCCL that is new enough, and its version; else what
    there is."""
    seen = []
    for folder in places:
        file = folder / "cuda" / "std" / "__cccl" / "version.h"
        match = (
            re.search(r"#\s*define CCCL_VERSION (\d+)", file.read_text()) if file.exists() else None
        )
        if match is None:
            continue
        number = int(match[1])
        version = (number // 1_000_000, number // 1000 % 1000, number % 1000)
        if version[:2] >= _OLDEST:
            return folder, ".".join(map(str, version))
        seen.append(".".join(map(str, version)))
    what = f"there is CCCL {' and '.join(seen)}" if seen else "there are no headers of CCCL"
    return (
        f"{what}; gpu_to_gpu needs 3.1 or newer: pip install nvidia-cuda-cccl, or name the folder "
        f"that holds cub/ in {_NAMED}"
    )


def _places(nvcc: Path) -> list[Path]:
    return [folder for folder in _candidates(nvcc) if folder.is_dir()]


def _candidates(nvcc: Path) -> Iterator[Path]:
    named = os.environ.get(_NAMED)
    if named:
        yield Path(named)
    for place in map(Path, sys.path):
        yield place / "nvidia" / "cu13" / "include" / "cccl"
        yield place / "nvidia" / "cuda_cccl" / "include"
    home = nvcc.resolve().parents[1]
    yield home / "include" / "cccl"
    yield home / "include"
