"""An object of an instruction set offers the linker nothing that could end up in another.

A weak function compiled with AVX-512 may stand in for the same function of portable code, and then
every processor without AVX-512 dies of it. So a file that is compiled once a level may define names
of its level's namespace only. Compiled here without inlining, which would hide a leak by chance.
"""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
SOURCES = sorted(CSRC.glob("*_isa.cpp"))
FLAGS = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mf16c", "-mfma"]

pytestmark = [
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
    pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed"),
    pytest.mark.skipif(
        platform.machine() not in {"x86_64", "AMD64"}, reason="the flags are those of x86"
    ),
]


def leaked(source: Path, target: Path) -> list[str]:
    """What `source`, compiled for AVX-512, defines for others outside ndp::avx512."""
    options = ["-std=c++20", "-O0", "-fno-exceptions", "-w", f"-I{CSRC}", "-DNDP_ISA=avx512"]
    subprocess.run(["c++", *options, *FLAGS, "-c", source, "-o", target], check=True)
    listing = subprocess.run(
        ["nm", "--defined-only", "--demangle", target], capture_output=True, text=True, check=True
    ).stdout
    found = []
    for line in listing.splitlines():
        _, kind, name = line.split(maxsplit=2)
        for_others = kind.isupper() or kind in "vw"
        if for_others and kind not in "RDB" and not re.match(r"(.*\s)?ndp::avx512::", name):
            found.append(f"{kind} {name}")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_levels_define_names_of_their_namespace_only(source: Path, tmp_path: Path) -> None:
    assert leaked(source, tmp_path / "object.o") == []


def test_a_planted_leak_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "planted_isa.cpp"
    source.write_text(
        "namespace ndp { inline int shared(int x) { return x + 1; }\n"
        "namespace avx512 { int mine(int x) { return shared(x); } } }\n"
    )
    assert leaked(source, tmp_path / "object.o") == ["W ndp::shared(int)"]
