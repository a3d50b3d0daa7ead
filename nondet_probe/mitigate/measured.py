"""What a sweep over thread counts found: which overloads change their bits with the count.

The table is `thread_sweep.json`, written by tests/mitigate/sweep.py for each version of torch. An
overload stands for those of the same operator that write in place or to an output: they share its
kernel. Calls that could not be compared are in the table's `not_measured` and count for nothing.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

__all__ = ["Kind", "covers_running_torch", "example", "finding", "kinds", "operator", "versions"]

TABLE = "thread_sweep.json"


class Kind(enum.Enum):
    """Of the operands of a call: what they are decides which kernel runs. The values are their
    places in a row of the table, after all calls and those large enough for threads."""

    REAL = 2
    NARROW = 3  # bfloat16 and float16
    COMPLEX = 4


_KINDS = {
    torch.bfloat16: Kind.NARROW,
    torch.float16: Kind.NARROW,
    torch.complex32: Kind.COMPLEX,
    torch.complex64: Kind.COMPLEX,
    torch.complex128: Kind.COMPLEX,
}
_LARGE = 1


def operator(overload: str) -> str:
    """`aten::add_.Tensor` and `aten::add.out` to `aten::add`."""
    name = overload.split(".")[0]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def kinds(operands: Iterable[Any]) -> set[Kind]:
    """The kinds of the tensors among the operands of a call, also within lists."""
    found = set()
    for x in operands:
        if isinstance(x, Tensor):
            found.add(_KINDS.get(x.dtype, Kind.REAL))
        elif isinstance(x, list | tuple):
            found |= kinds(x)
    return found


def versions() -> list[str]:
    """The versions of torch that were measured."""
    return sorted(_table())


def covers_running_torch() -> bool:
    """Whether the running version, up to its last number, is one of them."""
    running = torch.__version__.split("+")[0].rpartition(".")[0]
    return running in {version.rpartition(".")[0] for version in versions()}


def finding(overload: str) -> frozenset[Kind] | None:
    """On which kinds of operands an overload (`aten::silu`, `aten::sum.dim_IntList`) was seen to
    vary, in any version; None where it was not measured, or never on enough elements for threads.
    """
    return _findings().get(operator(overload))


def example(overload: str) -> str:
    """Operands on which the operator was seen to vary; "" where it was not."""
    for version in _table().values():
        for name, operands in version["examples"].items():
            if operator(_with_colons(name)) == operator(overload):
                return str(operands)
    return ""


@cache
def _table() -> dict[str, dict[str, dict[str, list[int]]]]:
    text = files("nondet_probe.mitigate").joinpath(TABLE).read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, list[int]]]] = json.loads(text)
    return table


@cache
def _findings() -> dict[str, frozenset[Kind]]:
    totals: dict[str, list[int]] = {}
    for version in _table().values():
        for name, row in version["overloads"].items():
            total = totals.setdefault(operator(_with_colons(name)), [0] * len(row))
            for place, count in enumerate(row):
                total[place] += count
    found = {
        name: frozenset(kind for kind in Kind if total[kind.value])
        for name, total in totals.items()
    }
    return {name: kinds for name, kinds in found.items() if kinds or totals[name][_LARGE]}


def _with_colons(name: str) -> str:
    """`aten.add.Tensor`, as torch prints it, to `aten::add.Tensor`."""
    return name.replace(".", "::", 1)
