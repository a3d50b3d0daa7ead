"""Align two sequences in order, in bounded time: what is rare in both first, then in between."""

from __future__ import annotations

from bisect import bisect_left
from difflib import SequenceMatcher

import numpy as np

from nondet_probe.probe.differ.sides import Ints

__all__ = ["Budget", "Matches", "gaps", "in_order"]

Matches = tuple[Ints, Ints]
"""Places in either sequence, both increasing."""

_SMALL = 1 << 16
_EMPTY: Ints = np.empty(0, np.int64)


class Budget:
    """How much may be spent, all in all, on gaps that only a slow comparison resolves. left: in
    pairs of places looked at."""

    def __init__(self, left: int = 20_000_000) -> None:
        self.left = left

    def take(self, cost: int) -> bool:
        if cost > min(self.left, _SMALL):
            return False
        self.left -= cost
        return True


def in_order(x: Ints, y: Ints, budget: Budget) -> Matches:
    """Places of equal numbers, in the order of both.

    The common beginning and end are matched first. Of the rest, those numbers that both sides have
    equally often are paired, the i-th with the i-th, and the longest rising sequence of these pairs
    is kept (Cohen's patience diff, with repeats); then what lies between them in the same way.
    Where there are none, a small gap is compared in full, a large one left open.
    """
    matches = [(_EMPTY, _EMPTY)]
    todo = [(0, len(x), 0, len(y))]
    while todo:
        x0, x1, y0, y1 = todo.pop()
        head = _common(x[x0:x1], y[y0:y1])
        tail = _common(x[x0 + head : x1][::-1], y[y0 + head : y1][::-1])
        matches.append((np.arange(x0, x0 + head), np.arange(y0, y0 + head)))
        matches.append((np.arange(x1 - tail, x1), np.arange(y1 - tail, y1)))
        x0, x1, y0, y1 = x0 + head, x1 - tail, y0 + head, y1 - tail
        if x0 == x1 or y0 == y1:
            continue
        found = _anchors(x[x0:x1], y[y0:y1])
        if len(found[0]):
            todo += [
                (x0 + a, x0 + b, y0 + c, y0 + d)
                for a, b, c, d in gaps(found, x1 - x0, y1 - y0).tolist()
            ]
        elif budget.take((x1 - x0) * (y1 - y0)):
            found = _in_full(x[x0:x1], y[y0:y1])
        matches.append((found[0] + x0, found[1] + y0))
    all_x = np.concatenate([some for some, _ in matches])
    all_y = np.concatenate([some for _, some in matches])
    order = np.argsort(all_x, kind="stable")
    return all_x[order], all_y[order]


def gaps(found: Matches, length_x: int, length_y: int) -> Ints:
    """Rows (x0, x1, y0, y1) of what lies between matches and is not empty on either side."""
    starts = [np.concatenate([[0], some + 1]) for some in found]
    ends = [np.append(found[0], length_x), np.append(found[1], length_y)]
    rows = np.stack([starts[0], ends[0], starts[1], ends[1]], axis=1)
    return rows[(starts[0] < ends[0]) & (starts[1] < ends[1])]


def _common(x: Ints, y: Ints) -> int:
    """Length of the common beginning."""
    shorter = min(len(x), len(y))
    unequal = x[:shorter] != y[:shorter]
    return int(unequal.argmax()) if unequal.any() else shorter


def _anchors(x: Ints, y: Ints) -> Matches:
    of_x, counts_x = np.unique(x, return_counts=True)
    of_y, counts_y = np.unique(y, return_counts=True)
    common, places_x, places_y = np.intersect1d(of_x, of_y, assume_unique=True, return_indices=True)
    common = common[counts_x[places_x] == counts_y[places_y]]
    if not len(common):
        return _EMPTY, _EMPTY
    at_x, at_y = (np.flatnonzero(np.isin(of, common)) for of in (x, y))
    # Grouped by number, in order within each: the i-th of one side stands by the i-th of the other.
    at_x = at_x[np.argsort(x[at_x], kind="stable")]
    at_y = at_y[np.argsort(y[at_y], kind="stable")]
    order = np.argsort(at_x)
    at_x, at_y = at_x[order], at_y[order]
    kept = _rising(at_y)
    return at_x[kept], at_y[kept]


def _rising(values: Ints) -> Ints:
    """Places of a longest rising subsequence of distinct numbers."""
    if bool((values[1:] > values[:-1]).all()):
        return np.arange(len(values))
    tops: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for place, value in enumerate(values.tolist()):
        length = bisect_left(tops, value)
        before.append(ends[length - 1] if length else -1)
        if length == len(tops):
            tops.append(value)
            ends.append(place)
        else:
            tops[length], ends[length] = value, place
    kept, place = [], ends[-1]
    while place >= 0:
        kept.append(place)
        place = before[place]
    return np.array(kept[::-1], np.int64)


def _in_full(x: Ints, y: Ints) -> Matches:
    blocks = SequenceMatcher(None, x.tolist(), y.tolist(), autojunk=False).get_matching_blocks()
    starts = [(np.arange(a, a + size), np.arange(b, b + size)) for a, b, size in blocks]
    return np.concatenate([a for a, _ in starts]), np.concatenate([b for _, b in starts])
