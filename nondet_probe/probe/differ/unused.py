"""Generators whose states differ, and the training did not draw from them: nothing comes of it."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from nondet_probe.probe.differ.sides import Bools, Side
from nondet_probe.records.trace_reader import Trace

__all__ = ["without_unused"]

_UNSEEDED = {"python", "numpy"}
"""They begin every process in another state; torch's generator begins in one until it is seeded."""

_Words = tuple[int, int]


def without_unused(a: Trace, b: Trace, of_a: Side, of_b: Side) -> tuple[Side, Side, list[str]]:
    """The records without those of generators that neither run drew from; and in words, without a
    full stop, which these were.

    Left out are generators that stood still from the recordings' beginning to their end; and of
    Python's and NumPy's own, which nobody need have seeded, also those that stood still through all
    recorded steps: importing a library may draw from them. What they decided before, about data
    say, shows in the data.
    """
    idle = set(a.meta.idle) & set(b.meta.idle)
    still = (_still(a, of_a) & _still(b, of_b)) - idle
    told = []
    if apart := _apart(a, b, of_a, of_b, idle):
        told.append(
            f"{_named(apart)} in other states in the two runs; neither run drew from "
            f"{'it' if len(apart) == 1 else 'them'}, so that was left out"
        )
    if apart := _apart(a, b, of_a, of_b, still):
        one = len(apart) == 1
        told.append(
            f"{_named(apart)} in other states in the two runs before the first step, and no "
            f"recorded step drew from {'it' if one else 'them'}, so that was left out; if the "
            f"program drew data or weights from {'it' if one else 'them'} before, seed "
            f"{'it' if one else 'them'}"
        )
    if not told:
        return of_a, of_b, []
    unused = idle | still
    kept_a, kept_b = (~_of_generators(t, s, unused) for t, s in ((a, of_a), (b, of_b)))
    return of_a.at(kept_a), of_b.at(kept_b), told


def _named(names: list[str]) -> str:
    """ "the generator numpy was", "the generators numpy and python were"."""
    if len(names) == 1:
        return f"the generator {names[0]} was"
    return f"the generators {', '.join(names[:-1])} and {names[-1]} were"


def _still(trace: Trace, side: Side) -> set[str]:
    """Of `_UNSEEDED` those with one state at the start of every step, two at least."""
    found = set()
    for name in _UNSEEDED:
        states = _states(trace, side, {name})
        if len(states) > 1 and len(set(states)) == 1:
            found.add(name)
    return found


def _apart(a: Trace, b: Trace, of_a: Side, of_b: Side, names: Set[str]) -> list[str]:
    """Which of these generators differ."""
    of = [set(_states(trace, side, names)) for trace, side in ((a, of_a), (b, of_b))]
    return sorted({name for name, _ in of[0] ^ of[1]})


def _of_generators(trace: Trace, side: Side, names: Set[str]) -> Bools:
    """Which records of a side hold the state of one of these generators of the process."""
    of = [site.kind == "rng" and site.name in names for site in trace.sites]
    chosen: Bools = np.array(of or [False], np.bool_)[trace.arrays.site[side.number]]
    return chosen


def _states(trace: Trace, side: Side, names: Set[str]) -> list[tuple[str, _Words]]:
    found = np.flatnonzero(_of_generators(trace, side, names))
    of = trace.arrays
    return [
        (trace.sites[of.site[number]].name, (int(of.out0[number]), int(of.out1[number])))
        for number in side.number[found]
    ]
