"""What a kernel's PTX says about its additions: atomics, fused operations, approximations.

For the PTX of any compiler (Triton's, nvcc's): `functions` takes the text apart, the rules look at
one function each and return what offends, nothing where nothing does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

__all__ = [
    "Function",
    "atomics_other_than",
    "float_atomics",
    "flushed",
    "functions",
    "fused",
    "inexact_operations",
    "is_float",
]

_HEAD = re.compile(r"^\s*(?:\.visible\s+|\.weak\s+|\.extern\s+)*\.(entry|func)\b", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*(?:@!?%\w+\s+)?([a-z]\w*(?:\.\w+|::\w+)*)", re.MULTILINE)
_FLOAT = re.compile(r"^(?:b?f(?:16|32|64)(?:x2)?|tf32|e[45]m[0-9]\w*)$")
_ATOMIC_OPERATIONS = {"add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"}


@dataclass(frozen=True)
class Function:
    """A kernel (`entry`) or a function of the device that was not inlined.

    atomics: (operation, type), such as ("add", "f32"), with how many instructions there are;
    reductions of asynchronous copies count as well. instructions: whole opcodes, with theirs.
    """

    name: str
    entry: bool
    atomics: Counter[tuple[str, str]] = field(default_factory=Counter)
    instructions: Counter[str] = field(default_factory=Counter)


def functions(ptx: str) -> dict[str, Function]:
    """Every function with a body in a module, by name."""
    text = re.sub(r"/\*.*?\*/", " ", re.sub(r"//[^\n]*", "", ptx), flags=re.DOTALL)
    found = {}
    for head in _HEAD.finditer(text):
        open_brace, semicolon = text.find("{", head.end()), text.find(";", head.end())
        if open_brace < 0 or 0 <= semicolon < open_brace:
            continue  # a declaration
        signature = re.sub(r"^\s*\([^)]*\)", "", text[head.end() : open_brace])
        (name,) = re.findall(r"^\s*([\w$]+)", signature)
        function = Function(name, head.group(1) == "entry")
        for opcode in _opcodes(_body(text, open_brace)):
            function.instructions[opcode] += 1
            if (atomic := _atomic(opcode)) is not None:
                function.atomics[atomic] += 1
        found[name] = function
    return found


def _body(text: str, start: int) -> str:
    """From an opening brace to the one that closes it."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start : place + 1]
    raise ValueError("a function has no end")


def _opcodes(body: str) -> list[str]:
    # One instruction a line: several may share one, and one may follow a brace.
    return [m.group(1) for m in _INSTRUCTION.finditer(re.sub(r"[;{}]", "\n", body))]


def _atomic(opcode: str) -> tuple[str, str] | None:
    parts = re.split(r"\.|::", opcode)
    if parts[0] not in {"atom", "red"} and parts[:2] != ["cp", "reduce"]:
        return None
    operation = next(part for part in parts[1:] if part in _ATOMIC_OPERATIONS)
    return operation, parts[-1]


def is_float(kind: str) -> bool:
    """Whether this is a type of floats, such as "bf16x2"."""
    return _FLOAT.match(kind) is not None


# ---- the rules


def float_atomics(function: Function) -> list[str]:
    """Atomics on floats; and compare-and-swap, which may hide one."""
    return sorted(
        f"{function.name}: {count} {operation}.{kind}"
        for (operation, kind), count in function.atomics.items()
        if is_float(kind) or operation == "cas"
    )


def atomics_other_than(function: Function, declared: Collection[tuple[str, str]]) -> list[str]:
    """Atomics that were not declared, and declared ones that are not there."""
    found = set(function.atomics)
    return [
        *(f"{function.name}: undeclared {'.'.join(a)}" for a in sorted(found - set(declared))),
        *(f"{function.name}: no {'.'.join(a)}" for a in sorted(set(declared) - found)),
    ]


def fused(function: Function) -> list[str]:
    """Multiplications of floats that round together with an addition."""
    return _matching(function, r"(fma|mad)\.(?!lo|hi|wide).*")


def inexact_operations(function: Function) -> list[str]:
    """Divisions and functions that are not rounded to nearest."""
    return _matching(function, r".*\.approx\b.*|div\.full\b.*|(?:ex2|lg2|sin|cos|tanh)\..*")


def flushed(function: Function) -> list[str]:
    """Operations that take subnormals for zeros."""
    return _matching(function, r".*\.ftz\b.*")


def _matching(function: Function, pattern: str) -> list[str]:
    return sorted(
        f"{function.name}: {count} {opcode}"
        for opcode, count in function.instructions.items()
        if re.fullmatch(pattern, opcode)
    )
