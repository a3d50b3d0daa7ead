"""What a sweep over thread counts found: which overloads change their bits with the count.

The table is `thread_sweep.json`, written by tests/mitigate/sweep.py for each version of torch. An
overload stands for those of the same operator that write in place or to an output: they share its
kernel.
"""

from __future__ import annotations

import enum
import json
from functools import cache
from importlib.resources import files

import torch

__all__ = ["Finding", "example", "finding", "operator", "versions"]

TABLE = "thread_sweep.json"


class Finding(enum.Enum):
    """What is known of an operator's bits under 1, 2, 3 and 4 threads, most cautious last."""

    STABLE = "the same bits on every call, of which some were large enough for threads"
    COMPLEX = "other bits, on complex operands alone"
    UNKNOWN = "not measured, or not on operands large enough for threads"
    VARIES = "other bits"


def operator(overload: str) -> str:
    """`aten::add_.Tensor` and `aten::add.out` to `aten::add`."""
    name = overload.split(".")[0]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def versions() -> list[str]:
    """The versions of torch that were measured."""
    return sorted(_table())


def covers_running_torch() -> bool:
    """Whether the running version, up to its last number, is one of them."""
    running = torch.__version__.split("+")[0].rpartition(".")[0]
    return running in {version.rpartition(".")[0] for version in versions()}


def finding(overload: str) -> Finding:
    """What is known of an overload (`aten::silu`, `aten::sum.dim_IntList`) in any version."""
    return _findings().get(operator(overload), Finding.UNKNOWN)


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
def _findings() -> dict[str, Finding]:
    totals: dict[str, list[int]] = {}
    for version in _table().values():
        for name, row in version["overloads"].items():
            total = totals.setdefault(operator(_with_colons(name)), [0, 0, 0, 0])
            for place, count in enumerate(row):
                total[place] += count
    return {name: _judged(*total) for name, total in totals.items()}


def _judged(calls: int, large: int, varied: int, varied_complex: int) -> Finding:
    if varied > varied_complex:
        return Finding.VARIES
    if not large:
        return Finding.VARIES if varied else Finding.UNKNOWN
    return Finding.COMPLEX if varied else Finding.STABLE


def _with_colons(name: str) -> str:
    """`aten.add.Tensor`, as torch prints it, to `aten::add.Tensor`."""
    return name.replace(".", "::", 1)
