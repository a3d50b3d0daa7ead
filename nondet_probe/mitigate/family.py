"""ATen overloads that an op of this library can answer, and how its arguments are passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nondet_probe import ops
from nondet_probe.ops.registry import Guarantee, Variant, variants

__all__ = ["FAMILY", "Relative", "weakest"]


@dataclass(frozen=True)
class Relative:
    """op: its name in the registry. call(variant, *args, **kwargs) takes ATen's arguments and gives
    ATen's result, or NotImplemented for what the op does not take."""

    op: str
    call: Callable[..., Any]


def weakest(op: str, guarantee: Guarantee) -> Variant | None:
    """The variant with the weakest guarantee that is enough; None where there is none."""
    enough = [variant for variant in variants(op) if variant.guarantee >= guarantee]
    return min(enough, key=lambda variant: variant.guarantee, default=None)


def _sum(variant: str, x: Tensor, *, dtype: Any = None) -> Any:
    if dtype not in (None, x.dtype) or not x.is_contiguous() or not _takes("sum", variant, x):
        return NotImplemented
    return ops.sum(x, variant=variant)


def _takes(op: str, variant: str, x: Tensor) -> bool:
    return any(known.name == variant and x.dtype in known.dtypes for known in variants(op))


FAMILY: dict[str, Relative] = {
    "aten::sum": Relative("sum", _sum),
}
"""Overload to relative. A new op of the library needs a function here and a line."""
