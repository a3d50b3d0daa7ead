"""The rules for what nvcc makes of the kernels: floating-point atomics and fused multiplications
that are declared, and no others. `tests/kernels/ptx.py` takes PTX apart."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ptx import functions, is_float
from ptx import fused as fused_operations

__all__ = ["Entry", "entries", "offences"]


@dataclass(frozen=True)
class Entry:
    """A kernel, or a function of the device that was not inlined: its floating-point atomics, such
    as "add.f32", with compare-and-swap, which may hide one, and how many kinds of fma it has."""

    name: str
    float_atomics: frozenset[str]
    fused: int


def entries(ptx: str) -> list[Entry]:
    """All functions with a body in a PTX file, their names as in the source."""
    found = functions(ptx)
    names = _plain(list(found))
    return [
        Entry(
            names[mangled],
            frozenset(
                f"{operation}.{kind}"
                for operation, kind in function.atomics
                if is_float(kind) or operation == "cas"
            ),
            len(fused_operations(function)),
        )
        for mangled, function in found.items()
    ]


def offences(
    found: list[Entry], declared: Mapping[str, frozenset[str]], fused: Collection[str] = ()
) -> list[str]:
    """What breaks the rules, in words. declared: for kernels whose name matches a pattern, all of
    the floating-point atomics that they have; the others have none. fused: patterns of the kernels
    whose numerics ask for fused multiplications; the others have none."""
    said = []
    for entry in found:
        allowed = [
            atomics for pattern, atomics in declared.items() if re.search(pattern, entry.name)
        ]
        expected = allowed[0] if allowed else frozenset()
        if entry.float_atomics != expected:
            said.append(
                f"{entry.name}: floating-point atomics {sorted(entry.float_atomics)}, "
                f"declared {sorted(expected)}"
            )
        if (entry.fused > 0) != any(re.search(pattern, entry.name) for pattern in fused):
            said.append(f"{entry.name}: {entry.fused} fused multiplications")
    said += [
        f"no kernel is called {pattern}"
        for pattern in (*declared, *fused)
        if not any(re.search(pattern, entry.name) for entry in found)
    ]
    return said


def _plain(mangled: list[str]) -> dict[str, str]:
    done = subprocess.run(
        ["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True
    )
    plain = [line.replace("(anonymous namespace)::", "") for line in done.stdout.splitlines()]
    return dict(zip(mangled, plain, strict=True))
