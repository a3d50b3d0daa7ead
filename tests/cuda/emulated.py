"""Builds the kernels for GPUs for the host: the `.cu` files as they are, with the grid of
csrc/emulated.hpp in place of a GPU. Nothing is compiled anew unless a source changed."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc"
OUT = ROOT / "build" / "emulated"
NAME = "_emulated"
FLAGS = [
    "-std=c++20",
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",  # unroll is nvcc's
    f"-DNDP_MODULE={NAME}",
    f"-I{CSRC}",
    f"-I{sysconfig.get_paths()['include']}",
]


def _state_of_sources(sources: Sequence[Path]) -> str:
    """A digest of the sources, of every header of csrc and of the flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in (*sources, *sorted(CSRC.glob("*.hpp"))):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _headers() -> Path:
    """pybind11's, or those that torch brings along: a GPU's machine may have no more."""
    for package in ("pybind11", "torch"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            if (Path(place) / "include" / "pybind11" / "pybind11.h").exists():
                return Path(place) / "include"
    raise AssertionError("there are no headers of pybind11")


@functools.cache
def emulated() -> ModuleType:
    """All kernels, with the bindings that nondet_probe._cuda has."""
    return built(NAME, (*sorted(CSRC.glob("*.cu")), CSRC / "device_bindings.cpp"))


def built(name: str, sources: Sequence[Path]) -> ModuleType:
    """The module `name` made of these sources and the emulated grid, built when it has to be."""
    sources = (*sources, CSRC / "emulated.cpp")
    folder = OUT / _state_of_sources(sources)
    target = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.exists():
        _build(sources, target)
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(sources: Sequence[Path], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CXX", "c++")

    def build(source: Path) -> Path:
        result = target.parent / f"{source.name}.o"
        language = ["-x", "c++"] if source.suffix == ".cu" else []
        command = [
            compiler,
            *FLAGS,
            f"-I{_headers()}",
            *language,
            "-c",
            str(source),
            "-o",
            str(result),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return result

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(build, sources))
    unfinished = target.with_suffix(".part")
    subprocess.run(
        [compiler, "-shared", *map(str, objects), "-o", str(unfinished)],
        check=True,
        capture_output=True,
    )
    unfinished.rename(target)
