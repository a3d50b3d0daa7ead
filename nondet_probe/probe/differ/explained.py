"""Modules whose output differs for a reason that stands before them in the trace."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nondet_probe.probe.differ.sides import Bools, Ints
from nondet_probe.records.trace import Site

__all__ = ["explained"]

_STATE = {"parameter", "buffer"}
_EVERYWHERE = {"rng", "environment"}


def explained(pairs: Ints, differ: Bools, step: Ints, sites: list[Site], site: Ints) -> Bools:
    """For each of `pairs`, modules that were given equal inputs and returned other outputs, whether
    that follows from something before: from what differs inside of it in the same step, from one of
    its parameters or buffers as last recorded, or from a generator or switch that differs in this
    step. None of these is among what a module is given.

    pairs: places, rising; differ, step, site: of every pair of records in order.
    """
    answers = np.zeros(len(pairs), np.bool_)
    state = _State(differ, sites, site)
    for begin, end in _runs(step[pairs]):
        start = int(np.searchsorted(step, step[pairs[begin]]))
        stop = int(pairs[end - 1]) + 1
        earliest, everywhere = _earliest(start, stop, differ, sites, site)
        damaged = state.before(start)
        for number in range(begin, end):
            place = int(pairs[number])
            path = sites[site[place]].module or ""
            answers[number] = (
                everywhere < place or earliest.get(path, stop) < place or path in damaged
            )
    return answers


class _State:
    """Which modules hold a parameter or buffer that differs, as of a place that only moves on."""

    def __init__(self, differ: Bools, sites: list[Site], site: Ints) -> None:
        holds = np.array([one.kind in _STATE for one in sites], np.bool_)
        self._places = np.flatnonzero(holds[site]) if len(sites) else np.empty(0, np.int64)
        self._differ, self._sites, self._site = differ, sites, site
        self._next = 0
        self._names: set[str] = set()

    def before(self, place: int) -> set[str]:
        """Paths of these modules, and of those around them."""
        end = int(np.searchsorted(self._places, place))
        for at in self._places[self._next : end].tolist():
            name = self._sites[self._site[at]].name
            if self._differ[at]:
                self._names.add(name)
            else:
                self._names.discard(name)
        self._next = end
        return {path for name in self._names for path in _around(name)}


def _earliest(
    start: int, stop: int, differ: Bools, sites: list[Site], site: Ints
) -> tuple[dict[str, int], int]:
    """Path -> place of the first record that differs in this module or in one inside of it; and the
    place of the first one that concerns everything."""
    places = start + np.flatnonzero(differ[start:stop])
    earliest: dict[str, int] = {}
    everywhere = stop
    numbers, first = np.unique(site[places], return_index=True)
    for number, at in zip(numbers.tolist(), first.tolist(), strict=True):
        one, place = sites[number], int(places[at])
        if one.kind in _EVERYWHERE:
            everywhere = min(everywhere, place)
        if one.module is not None:
            for path in (one.module, *_around(one.module)):
                earliest[path] = min(place, earliest.get(path, stop))
    return earliest, everywhere


def _around(path: str) -> Iterator[str]:
    """ "a.b", "a", "" for "a.b.c"."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _runs(values: Ints) -> Iterator[tuple[int, int]]:
    """Beginning and end of each stretch of one value."""
    ends = [*np.flatnonzero(values[1:] != values[:-1]) + 1, len(values)] if len(values) else []
    begin = 0
    for end in ends:
        yield begin, int(end)
        begin = int(end)
