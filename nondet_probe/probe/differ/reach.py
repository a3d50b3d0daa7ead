"""Runs that were cut off: what the other one has from there on is not missing."""

from __future__ import annotations

from dataclasses import replace

from nondet_probe.probe.differ.pairs import Pairs
from nondet_probe.probe.differ.scope import last_step
from nondet_probe.probe.differ.sides import Ints, Side

__all__ = ["reached"]


def reached(pairs: Pairs, until: tuple[int | None, int | None]) -> tuple[Pairs, list[str]]:
    """The pairs, without the records that one run alone has where the other was cut off; and in
    words, without a full stop, how many these are.

    until: of run a and of run b the first step that is not whole, None where it came to its end.
    """
    at, (until_a, until_b) = pairs.alignment, until
    only_a, left_a = _without(pairs.side_a, at.only_a, until_b)
    only_b, left_b = _without(pairs.side_b, at.only_b, until_a)
    told = [
        f"run {name} ends in {last_step(ended)}: {left} record{'s' * (left != 1)} that run {other} "
        f"alone has from there on {'was' if left == 1 else 'were'} not compared"
        for name, ended, other, left in (
            ("a", pairs.a, "b", left_b),
            ("b", pairs.b, "a", left_a),
        )
        if left
    ]
    return replace(pairs, alignment=replace(at, only_a=only_a, only_b=only_b)), told


def _without(side: Side, only: Ints, until: int | None) -> tuple[Ints, int]:
    """These places without those from this step on, and how many were left out."""
    if until is None:
        return only, 0
    kept = only[side.step[only] < until]
    return kept, len(only) - len(kept)
