"""Which variants of which op exist, and what each of them promises.

An op registers its variants when its module is imported. A name that is asked for is either found
or refused with the list of those that are known: nothing falls back to another variant.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import torch

from nondet_probe.errors import unknown_name

__all__ = ["Guarantee", "Variant", "find", "ops", "register", "variants"]


class Guarantee(enum.IntEnum):
    """What stays the same, weakest first; each one includes those before it. docs/ops.md."""

    NONE = 0
    RUN_TO_RUN = 1
    """Same machine, same launch (threads, ISA, grid): same bits."""
    LAUNCH_INVARIANT = 2
    """Any thread count, ISA and grid: same bits."""
    ORDER_INVARIANT = 3
    """Any order of the addends: same bits."""
    CORRECTLY_ROUNDED = 4
    """The exact result, rounded once to nearest even."""

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Variant:
    """One algorithm for an op. The texts are sentences or formulas for people.

    cross_device: the same bits on CPU and GPU, held by a test on both.
    batch_invariant: the bits of one row do not depend on the rows computed with it.
    error_bound: of |result - exact|; u is half an ulp of 1 in the format accumulated in.
    extra_memory: beyond input and output.
    worst_case: the input it is slowest or least accurate on, and how much.
    """

    op: str
    name: str
    guarantee: Guarantee
    cross_device: bool
    batch_invariant: bool
    error_bound: str
    extra_memory: str
    worst_case: str
    dtypes: tuple[torch.dtype, ...]
    doc: str

    def __post_init__(self) -> None:
        for field in ("op", "name"):
            text = getattr(self, field)
            if not (text.isidentifier() and text.islower()):
                raise ValueError(f"Variant.{field} must be a lower-case identifier, got {text!r}")
        for field in ("error_bound", "extra_memory", "worst_case", "dtypes", "doc"):
            if not getattr(self, field):
                raise ValueError(f"Variant.{field} of {self.op}/{self.name} is empty")


_VARIANTS: dict[str, dict[str, Variant]] = {}


def register(variant: Variant) -> Variant:
    """Make a variant known. ValueError when its op has one of that name already."""
    of_op = _VARIANTS.setdefault(variant.op, {})
    if variant.name in of_op:
        raise ValueError(
            f"variant {variant.name!r} of op {variant.op!r} is registered already; "
            "give the new one another name"
        )
    of_op[variant.name] = variant
    return variant


def ops() -> tuple[str, ...]:
    """The ops that have variants, in the order of registration."""
    return tuple(_VARIANTS)


def variants(op: str) -> tuple[Variant, ...]:
    """An op's variants in the order of registration. UnknownNameError lists the known ops."""
    if op not in _VARIANTS:
        raise unknown_name("op", op, _VARIANTS)
    return tuple(_VARIANTS[op].values())


def find(op: str, name: str) -> Variant:
    """The variant asked for. UnknownNameError lists those that the op has."""
    try:
        return _VARIANTS[op][name]
    except KeyError:
        variants(op)
        raise unknown_name(f"variant of {op}", name, _VARIANTS[op]) from None
