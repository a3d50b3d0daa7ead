"""Build `nondet_probe._C`: pybind11 only, no torch headers, one object per (source, ISA).

A file `csrc/<stem>_isa.cpp` is compiled once for every ISA level of the target machine, each time
into a namespace of its own (`NDP_ISA`); every other `csrc/*.cpp` is compiled once. Which level runs
is decided at run time (`csrc/isa.hpp`). Nothing is recompiled unless its source, a header it
includes, or its command line changed.

The kernels for GPUs, `csrc/*.cu`, go into a module of their own, `nondet_probe._cuda`, which is
loaded on first use and needs no driver before. NONDET_PROBE_CUDA=1 builds it, 0 does not, auto (the
default) builds it where there is an nvcc.

NONDET_PROBE_SANITIZE=address,undefined (or thread) builds for the sanitizers: see `make sanitize`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")

# No contraction, no reassociation: the numerics are proofs about single IEEE operations.
BASE_FLAGS = [
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-fast-math",
    "-pthread",
    "-Wall",
    "-Wextra",
]

# `portable` is all a machine without x86 has; on x86 it doubles as a check of the intrinsics.
X86_FLAGS = {
    "portable": [],
    "sse2": ["-msse2"],
    # Nothing is fused but what says so: -ffp-contract=off stands above.
    "avx2": ["-mavx2", "-mf16c", "-mfma"],
    "avx512": [
        "-mavx512f",
        "-mavx512dq",
        "-mavx512bw",
        "-mavx512vl",
        "-mf16c",
        "-mfma",
        "-mprefer-vector-width=512",
    ],
}


# Ampere, Hopper and Blackwell as they are; PTX for what comes after.
CUDA_ARCHITECTURES = ("80", "90", "100")
CUDA_FLAGS = [
    "-std=c++20",
    "-O3",
    "-fmad=false",
    "--threads=4",  # the architectures of one source at once
    "-Xcompiler=-fPIC,-fvisibility=hidden,-ffp-contract=off",
    *(f"-gencode=arch=compute_{number},code=sm_{number}" for number in CUDA_ARCHITECTURES),
    f"-gencode=arch=compute_{CUDA_ARCHITECTURES[-1]},code=compute_{CUDA_ARCHITECTURES[-1]}",
]

SANITIZE = os.environ.get("NONDET_PROBE_SANITIZE", "")


# Of csrc/*.cpp, what belongs to GPUs, or to the grid that stands in for one in the tests.
DEVICE_SOURCES = {"device_bindings.cpp", "emulated.cpp"}


def pybind11_headers() -> Path:
    """Of pybind11, or of the copy that torch brings along, for machines without the package."""
    for package in ("pybind11", "torch"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            if (Path(place) / "include" / "pybind11" / "pybind11.h").exists():
                return Path(place) / "include"
    raise SystemExit("there are no headers of pybind11: pip install pybind11")


INCLUDES = [
    f"-I{CSRC}",
    f"-I{pybind11_headers()}",
    f"-I{sysconfig.get_paths()['include']}",
]


def sanitizer_flags() -> list[str]:
    """What a sanitized build adds to every command, compiling and linking."""
    if not SANITIZE:
        return []
    # ThreadSanitizer takes the barriers of an OpenMP that it did not instrument for races.
    own_threads = ["-DNDP_OWN_THREADS=1"] if SANITIZE == "thread" else []
    at_once = ["-fno-sanitize-recover=undefined", "-g", "-O1"]
    return [f"-fsanitize={SANITIZE}", *at_once, "-DNDP_SANITIZED=1", *own_threads]


def isa_flags() -> dict[str, list[str]]:
    """The ISA levels to build for this machine, each with its compiler flags."""
    if platform.machine().lower() in {"x86_64", "amd64"}:
        return X86_FLAGS
    return {"portable": []}


def find_nvcc() -> tuple[Path | None, str]:
    """The nvcc to build with, or None and the reason. SystemExit when one is asked for in vain."""
    asked = os.environ.get("NONDET_PROBE_CUDA", "auto")
    if asked not in {"auto", "0", "1"}:
        raise SystemExit(f"NONDET_PROBE_CUDA={asked}: must be auto, 0 or 1")
    if asked == "0":
        return None, "no (NONDET_PROBE_CUDA=0)"
    places = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    found = shutil.which("nvcc") or shutil.which(
        "nvcc", path=os.pathsep.join(f"{place}/bin" for place in places if place)
    )
    if found:
        # What is on the PATH may be a link, or a script, beside which no headers and libraries lie.
        dry = subprocess.run([found, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
        tops = [line.split("=", 1)[1] for line in dry.splitlines() if line.startswith("#$ TOP=")]
        home = Path(tops[0]).resolve() if tops else Path(found).resolve().parents[1]
        return home / "bin" / "nvcc", f"yes ({found})"
    if asked == "1":
        raise SystemExit(
            "NONDET_PROBE_CUDA=1, but there is no nvcc on the PATH, in CUDA_HOME or in "
            "/usr/local/cuda"
        )
    return None, "no (no nvcc on the PATH, in CUDA_HOME or in /usr/local/cuda)"


class BuildExt(build_ext):
    """Compile the (source, ISA) pairs in parallel, then link them into one module; the same with
    the kernels for GPUs, in a module of their own."""

    def build_extension(self, ext: Extension) -> None:
        if ext.name == "nondet_probe._cuda":
            self.build_cuda(ext)
            return
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        version = subprocess.run(
            [*compiler, "--version"], capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
        levels = isa_flags()
        print(f"nondet_probe._C: compiler: {version}")
        print(f"nondet_probe._C: ISA levels: {', '.join(levels)} (chosen at run time)")
        print(f"nondet_probe._C: CUDA: {find_nvcc()[1]}")
        if SANITIZE:
            print(f"nondet_probe._C: sanitizers: {SANITIZE}")
        sys.stdout.flush()

        out = object_directory()
        jobs: list[tuple[list[str], Path]] = []
        for source in sorted(CSRC.glob("*.cpp")):
            if source.name in DEVICE_SOURCES:
                continue
            variants = levels if source.stem.endswith("_isa") else {"": []}
            for isa, flags in variants.items():
                name = f"{source.stem}.{isa}" if isa else source.stem
                define = [f"-DNDP_ISA={isa}"] if isa else levels_defines(levels)
                target = out / f"{name}.o"
                command = [*compiler, *BASE_FLAGS, *sanitizer_flags(), *flags, *define, *INCLUDES]
                jobs.append(([*command, "-MMD", "-c", str(source), "-o", str(target)], target))
        # Hidden symbols and -Bsymbolic keep the ISA levels' inline functions to ourselves.
        # dlsym: in glibc itself since 2.34, before that in a library of its own.
        self.finish(ext, jobs, [*compiler, *sanitizer_flags(), "-Wl,-Bsymbolic"], ["-ldl"])

    def build_cuda(self, ext: Extension) -> None:
        nvcc, _ = find_nvcc()
        assert nvcc is not None
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        out = object_directory()
        jobs: list[tuple[list[str], Path]] = []
        for source in sorted(CSRC.glob("*.cu")):
            target = out / f"{source.stem}.cuda.o"
            command = [
                str(nvcc),
                *CUDA_FLAGS,
                f"-I{CSRC}",
                "-MMD",
                "-MF",
                f"{target.with_suffix('.d')}",
            ]
            jobs.append(([*command, "-c", str(source), "-o", str(target)], target))
        target = out / "device_bindings.cuda.o"
        headers = ["-DNDP_CUDA=1", "-DNDP_MODULE=_cuda", f"-I{nvcc.parents[1] / 'include'}"]
        command = [*compiler, *BASE_FLAGS, *headers, *INCLUDES, "-MMD", "-c"]
        jobs.append(([*command, f"{CSRC}/device_bindings.cpp", "-o", str(target)], target))
        folders = [nvcc.parents[1] / "lib64", nvcc.parents[1] / "lib"]
        libraries = [*(f"-L{folder}" for folder in folders), "-lcudart_static", "-lrt", "-ldl"]
        self.finish(ext, jobs, compiler, libraries)

    def finish(
        self,
        ext: Extension,
        jobs: list[tuple[list[str], Path]],
        linker: list[str],
        libraries: list[str],
    ) -> None:
        """Compile what is stale, and link everything if anything was."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = list(pool.map(lambda job: compile_if_stale(*job), jobs))
        print(f"{ext.name}: compiled {sum(compiled)} of {len(jobs)} objects")
        module = Path(self.get_ext_fullpath(ext.name))
        module.parent.mkdir(parents=True, exist_ok=True)
        if any(compiled) or not module.exists():
            objects = [str(target) for _, target in jobs]
            run([*linker, "-shared", "-pthread", *objects, *libraries, "-o", str(module)])


def object_directory() -> Path:
    """Not build_temp: pip makes a new one each time, and everything would be compiled anew."""
    kind = f"-{SANITIZE}" if SANITIZE else ""
    out = Path("build") / f"objects-{sys.implementation.cache_tag}-{platform.machine()}{kind}"
    out.mkdir(parents=True, exist_ok=True)
    return out


def levels_defines(levels: dict[str, list[str]]) -> list[str]:
    """Tell the dispatcher which levels were built."""
    return [f"-DNDP_HAVE_{isa.upper()}=1" for isa in levels]


def compile_if_stale(command: list[str], target: Path) -> bool:
    """Run `command` unless it made `target` after every one of its inputs last changed."""
    stamp = target.with_suffix(".json")
    deps = target.with_suffix(".d")
    if target.exists() and deps.exists() and stamp.exists():
        inputs = shlex.split(deps.read_text().replace("\\\n", " ").partition(":")[2])
        built = target.stat().st_mtime_ns
        fresh = all(Path(p).exists() and Path(p).stat().st_mtime_ns <= built for p in inputs)
        if fresh and json.loads(stamp.read_text()) == command:
            return False
    run(command)
    stamp.write_text(json.dumps(command))
    return True


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.stdout or done.stderr:
        print(done.stdout + done.stderr, file=sys.stderr)
    if done.returncode:
        raise SystemExit(f"failed: {shlex.join(command)}")


setup(
    # Named one by one: discovery does not go with a mapping (setuptools issue 4248).
    packages=[*find_packages(include=["nondet_probe*"]), "nondet_probe.kernels"],
    package_dir={"nondet_probe": "nondet_probe", "nondet_probe.kernels": "kernels"},
    ext_modules=[
        Extension("nondet_probe._C", sources=[]),
        *([Extension("nondet_probe._cuda", sources=[])] if find_nvcc()[0] else []),
    ],
    cmdclass={"build_ext": BuildExt},
)
