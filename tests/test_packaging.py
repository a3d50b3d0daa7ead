"""What a user installs: the wheel's contents, its metadata, the build's own words and speed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import nondet_probe

ROOT = Path(__file__).parents[1]


def checkout(target: Path) -> Path:
    """A copy of what git tracks or would track: what a fresh clone holds."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, and the log of building them."""
    source = checkout(tmp_path_factory.mktemp("source"))
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)],
        capture_output=True,
        text=True,
        env=os.environ | {"NONDET_PROBE_CUDA": "0"},
    )
    (out / "log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "nondet_probe",
        f"nondet_probe-{nondet_probe.__version__}.dist-info",
    }
    packaged = {name for name in names if name.startswith("nondet_probe/")}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "nondet_probe").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    kernels = {f"nondet_probe/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}
    assert len(kernels) > 1
    tracked |= kernels
    assert {name for name in packaged if not name.endswith(".so")} == tracked
    assert len([name for name in packaged if re.search(r"/_C\..*\.so$", name)]) == 1


def test_the_source_distribution_can_be_built_from(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {f"csrc/{path.name}" for path in (ROOT / "csrc").iterdir()}
    wanted |= {f"kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}
    assert wanted | {"setup.py", "pyproject.toml", "LICENSE"} <= names


def test_the_build_says_what_it_decided(built: Path) -> None:
    log = (built / "log").read_text()
    for line in ("compiler: ", "ISA levels: portable", "CUDA: no (NONDET_PROBE_CUDA=0)"):
        assert f"nondet_probe._C: {line}" in log


@pytest.mark.parametrize(
    ("asked", "nvcc", "said"),
    [
        ("yes", True, "NONDET_PROBE_CUDA=yes: must be auto, 0 or 1"),
        ("1", False, "there is no nvcc on the PATH"),
        ("auto", False, ""),
        ("auto", True, ""),
    ],
)
def test_what_is_asked_of_the_cuda_build(asked: str, nvcc: bool, said: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    if nvcc:
        compiler = tmp_path / "bin" / "nvcc"
        compiler.write_text("#!/bin/sh\necho '#$ TOP=/nowhere' >&2\n")
        compiler.chmod(0o755)
    setup = "import runpy; found = runpy.run_path('setup.py', run_name='x')['find_nvcc']()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['x', '--name']; {setup}; print(found)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": str(tmp_path / "bin"), "NONDET_PROBE_CUDA": asked, "CUDA_HOME": "/nowhere"},
    )
    if asked != "yes" and (nvcc or Path("/usr/local/cuda/bin/nvcc").exists()):
        assert "yes (" in done.stdout, done.stderr
    elif said:
        assert done.returncode == 1
        assert said in done.stderr
    else:
        assert "no (no nvcc on the PATH" in done.stdout, done.stderr


def test_the_installed_wheel_runs(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import torch, nondet_probe as n; print(n.__file__); print(n.digest(torch.arange(3)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert str(tmp_path) in done.stdout


def test_the_extension_needs_no_torch_library() -> None:
    from nondet_probe import _C

    libraries = subprocess.run(
        ["ldd", _C.__file__], capture_output=True, text=True, check=True
    ).stdout
    assert "libstdc++" in libraries  # the check sees libraries at all
    assert "torch" not in libraries
    assert "c10" not in libraries


def test_nothing_is_rebuilt_that_did_not_change(tmp_path: Path) -> None:
    source = checkout(tmp_path)

    def compiled() -> str:
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=source,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"NONDET_PROBE_CUDA": "0"},
        )
        (line,) = re.findall(r"compiled (\d+) of \d+ objects", done.stdout)
        return str(line)

    # What is built here already need not be compiled again to see what a change does.
    for objects in (ROOT / "build").glob("objects-*"):
        shutil.copytree(objects, source / "build" / objects.name)
    compiled()
    assert compiled() == "0"
    header = source / "csrc" / "isa.hpp"
    header.write_text(header.read_text() + "\n")
    assert int(compiled()) > 0
    assert compiled() == "0"


def test_metadata_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == nondet_probe.__version__
    assert "torch>=2.11,<2.15" in project["dependencies"]
    pins = (ROOT / "requirements-dev.txt").read_text("utf-8")
    assert "torch==2.13.0" in pins
