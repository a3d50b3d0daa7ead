"""What in PTX decides about determinism: floating-point atomics and fused multiplications."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass

__all__ = ["Entry", "entries", "offences"]

_ENTRY = re.compile(r"\.entry\s+(\w+)")
# red.global.add.f32, atom.shared.cas.b64, atom.global.gpu.relaxed.add.noftz.bf16x2, ...
_ATOMIC = re.compile(r"^\s*(?:@!?%p\d+\s+)?(?:atom|red)\.([\w.:]+)", re.M)
_FLOATS = re.compile(r"\.(?:b?f16(?:x2)?|f32|f64)$")
_FUSED = re.compile(r"^\s*(?:@!?%p\d+\s+)?fma\.", re.M)


@dataclass(frozen=True)
class Entry:
    """A kernel: its floating-point atomics, such as "add.f32", and how many fma it has."""

    name: str
    float_atomics: frozenset[str]
    fused: int


def entries(ptx: str) -> list[Entry]:
    """All kernels of a PTX file, their names as in the source."""
    starts = [(match.start(), match[1]) for match in _ENTRY.finditer(ptx)]
    names = _plain([name for _, name in starts])
    ends = [start for start, _ in starts[1:]] + [len(ptx)]
    found = []
    for (start, mangled), end in zip(starts, ends, strict=True):
        body = ptx[start:end]
        atomics = set()
        for match in _ATOMIC.finditer(body):
            if _FLOATS.search("." + match[1]):
                operation, kind = match[1].replace(".noftz", "").split(".")[-2:]
                atomics.add(f"{operation}.{kind}")
        found.append(Entry(names[mangled], frozenset(atomics), len(_FUSED.findall(body))))
    return found


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
