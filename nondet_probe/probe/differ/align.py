"""Which record of one trace is which of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nondet_probe.probe.differ.sequence import Budget, Matches, gaps, in_order
from nondet_probe.probe.differ.sides import Bools, Ints, Side, mixed

__all__ = ["Alignment", "align", "inputs_differ", "outputs_differ"]


@dataclass(frozen=True)
class Alignment:
    """at_a, at_b: places of the pairs, rising in a; only_a, only_b: places without a partner,
    rising. moved: pairs whose records stand elsewhere in their step. method: in words, no full
    stop."""

    at_a: Ints
    at_b: Ints
    only_a: Ints
    only_b: Ints
    moved: int
    method: str


def align(a: Side, b: Side) -> Alignment:
    """Pairs of records of equal step and key, or of equal step, op and inputs.

    Where both have the same sequence of steps and keys, record by record. Otherwise step by step:
    records that are wholly equal are matched in order first, then keys between them (with lines of
    source where these can be compared). What is left, and calls that differ in what they were
    given, are paired out of order within their step: by key and digests, by key and inputs, and by
    key and occurrence. Calls that are still alone may have another module in the other run, as
    those of compiled code have: they are paired by op and digests, and by op and inputs.
    """
    if np.array_equal(a.step, b.step) and np.array_equal(a.key, b.key):
        pairs = np.arange(len(a)), np.arange(len(b))
        method = "record by record: both runs have the same sequence"
    else:
        pairs, same, steps = _by_step(a, b)
        method = (
            "by sequence within each step, on phase, kind, op and module; "
            f"{same} of {steps} common steps have the same sequence in both runs"
        )
    (at_a, at_b), moved = _out_of_order(a, b, pairs)
    if moved:
        method += (
            f"; {moved} records stand elsewhere in their step, or in another module, and were "
        )
        method += "paired by digests or occurrence"
    # The numbers that stand for rows could agree by accident, or be made to.
    sound = (a.op[at_a] == b.op[at_b]) & (a.step[at_a] == b.step[at_b])
    at_a, at_b = at_a[sound], at_b[sound]
    order = np.argsort(at_a)
    only_a, only_b = _others(len(a), at_a), _others(len(b), at_b)
    return Alignment(at_a[order], at_b[order], only_a, only_b, moved, method)


def inputs_differ(a: Side, b: Side, at_a: Ints, at_b: Ints) -> Bools:
    """For each pair whether both have a digest of their inputs, and not the same."""
    unequal: Bools = (a.in0[at_a] != b.in0[at_b]) | (a.in1[at_a] != b.in1[at_b])
    unequal &= a.has_inputs[at_a] & b.has_inputs[at_b]
    return unequal


def outputs_differ(a: Side, b: Side, at_a: Ints, at_b: Ints) -> Bools:
    """For each pair whether the digests of the outputs are not the same; or one has none."""
    unequal: Bools = (a.out0[at_a] != b.out0[at_b]) | (a.out1[at_a] != b.out1[at_b])
    unequal |= a.has_outputs[at_a] != b.has_outputs[at_b]
    return unequal


def _by_step(a: Side, b: Side) -> tuple[Matches, int, int]:
    """Pairs in order; how many common steps have one sequence of keys in both; of how many."""
    tokens = [(_whole(side), side.place, side.key) for side in (a, b)]
    starts_a, starts_b = _starts(a.step), _starts(b.step)
    budget = Budget()
    found: list[Matches] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    same = 0
    common = [step for step in starts_a if step in starts_b]
    for step in common:
        (a0, a1), (b0, b1) = starts_a[step], starts_b[step]
        if np.array_equal(a.key[a0:a1], b.key[b0:b1]):
            same += 1
            found.append((np.arange(a0, a1), np.arange(b0, b1)))
            continue
        matches: Matches = np.empty(0, np.int64), np.empty(0, np.int64)
        for x, y in zip(*tokens, strict=True):
            matches = _refined(matches, x[a0:a1], y[b0:b1], budget)
        found.append((matches[0] + a0, matches[1] + b0))
    at_a, at_b = (np.concatenate([some[side] for some in found]) for side in (0, 1))
    return (at_a, at_b), same, len(common)


def _refined(matches: Matches, x: Ints, y: Ints, budget: Budget) -> Matches:
    """The matches, and more of them in between."""
    parts = [matches]
    for x0, x1, y0, y1 in gaps(matches, len(x), len(y)).tolist():
        some_x, some_y = in_order(x[x0:x1], y[y0:y1], budget)
        parts.append((some_x + x0, some_y + y0))
    all_x, all_y = (np.concatenate([some[side] for some in parts]) for side in (0, 1))
    order = np.argsort(all_x)
    return all_x[order], all_y[order]


def _out_of_order(a: Side, b: Side, pairs: Matches) -> tuple[Matches, int]:
    """The pairs with those mended that stand in another order, and how many these are."""
    at_a, at_b = pairs
    other = inputs_differ(a, b, at_a, at_b) | outputs_differ(a, b, at_a, at_b)
    # Who was given the same is the same call; that it made something else of it is the finding.
    given = a.proves[at_a] & b.proves[at_b] & ~inputs_differ(a, b, at_a, at_b)
    loose = other & a.movable[at_a] & ~given
    free_a, free_b = np.ones(len(a), np.bool_), np.ones(len(b), np.bool_)
    free_a[at_a[~loose]] = False
    free_b[at_b[~loose]] = False
    found: list[Matches] = []

    def pair(chosen_a: Bools, chosen_b: Bools, of: str) -> None:
        x, y = np.flatnonzero(free_a & chosen_a), np.flatnonzero(free_b & chosen_b)
        if not len(x) or not len(y):
            return
        some_x, some_y = _by_occurrence(_TOKENS[of](a, x), _TOKENS[of](b, y))
        found.append((x[some_x], y[some_y]))
        free_a[x[some_x]] = False
        free_b[y[some_y]] = False

    pair(a.movable, b.movable, "whole")
    pair(a.movable & a.proves, b.movable & b.proves, "inputs")
    kept = ~loose | (free_a[at_a] & free_b[at_b])
    free_a[at_a[kept]] = False
    free_b[at_b[kept]] = False
    everything_a, everything_b = np.ones(len(a), np.bool_), np.ones(len(b), np.bool_)
    pair(everything_a, everything_b, "key")
    pair(a.movable, b.movable, "op, whole")
    pair(a.movable & a.proves, b.movable & b.proves, "op, inputs")
    found.append((at_a[kept], at_b[kept]))
    moved = sum(len(some) for some, _ in found[:-1])
    return (
        np.concatenate([some for some, _ in found]),
        np.concatenate([some for _, some in found]),
    ), moved


def _whole(side: Side, at: Ints | slice = slice(None), key: str = "key") -> Ints:
    return mixed(
        getattr(side, key)[at],
        side.in0[at],
        side.in1[at],
        side.out0[at],
        side.out1[at],
        side.has_inputs[at],
        side.has_outputs[at],
    )


_TOKENS = {
    "whole": lambda side, at: mixed(side.step[at], _whole(side, at)),
    "inputs": lambda side, at: mixed(side.step[at], side.key[at], side.in0[at], side.in1[at]),
    "key": lambda side, at: mixed(side.step[at], side.key[at]),
    "op, whole": lambda side, at: mixed(side.step[at], _whole(side, at, "op")),
    "op, inputs": lambda side, at: mixed(side.step[at], side.op[at], side.in0[at], side.in1[at]),
}


def _by_occurrence(x: Ints, y: Ints) -> Matches:
    """The i-th of each number with the i-th of it on the other side."""
    # Mostly few are on both sides, and sorting is slow.
    in_x, in_y = (np.flatnonzero(_perhaps_in(*some)) for some in ((x, y), (y, x)))
    x, y = x[in_x], y[in_y]
    rows_x, rows_y = (mixed(some, _occurrence(some)) for some in (x, y))
    _, at_x, at_y = np.intersect1d(rows_x, rows_y, return_indices=True)
    return in_x[at_x], in_y[at_y]


def _perhaps_in(x: Ints, y: Ints) -> Bools:
    """For each number of x whether it is in y; some that are not are said to be. x, y: mixed."""
    last = (1 << (8 * len(y)).bit_length()) - 1
    seen = np.zeros(last + 1, np.bool_)
    seen[y & last] = True
    found: Bools = seen[x & last]
    return found


def _occurrence(x: Ints) -> Ints:
    """For each place how often its number stands before it."""
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    new = np.ones(len(x), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(new)
    counted = np.empty(len(x), np.int64)
    counted[order] = np.arange(len(x)) - np.repeat(starts, np.diff(np.append(starts, len(x))))
    return counted


def _starts(step: Ints) -> dict[int, tuple[int, int]]:
    """Step -> the places it begins at and ends before."""
    found, first = np.unique(step, return_index=True)
    last = np.append(first, len(step))[1:]
    return {
        int(one): (int(start), int(end)) for one, start, end in zip(found, first, last, strict=True)
    }


def _others(length: int, taken: Ints) -> Ints:
    free = np.ones(length, np.bool_)
    free[taken] = False
    return np.flatnonzero(free)
