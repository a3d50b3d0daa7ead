"""The first difference of two runs: which record, of what kind, and what is known of its inputs."""

from __future__ import annotations

import numpy as np

from nondet_probe.probe.differ.pairs import Pairs
from nondet_probe.probe.differ.sides import Ints, Side
from nondet_probe.records.difference import Root
from nondet_probe.records.trace import SETUP, Site
from nondet_probe.records.trace_reader import Trace

__all__ = ["first_difference", "kind_of", "root_of"]

_CALLS = {"op", "module", "collective"}


def first_difference(pairs: Pairs) -> tuple[Root, int | None] | None:
    """The root that comes first, with its pair, None where only one run has it; None where nothing
    differs.

    A record of one run only comes first where it stands before all pairs that differ, unless the
    first of these is a root: being given the same, that is no consequence of the record. A change
    of the switches that only one run made comes first in any case.
    """
    differing = np.flatnonzero(pairs.differ)
    pair = int(differing[0]) if len(differing) else None
    at_pair = float(pairs.alignment.at_a[pair]) if pair is not None else np.inf
    lone = _first_alone(pairs)
    if lone is not None:
        at, root = lone
        record = root.a or root.b
        switch = record is not None and record.site.kind == "environment"
        if at < at_pair and (switch or pair is None or not pairs.roots[pair]):
            return root, None
    return None if pair is None else (root_of(pairs, pair, alone=lone is None), pair)


def root_of(pairs: Pairs, pair: int, *, alone: bool = False) -> Root:
    """The root that this pair is. alone: nothing before it differs, and nothing is unaligned."""
    at_a, at_b = pairs.numbers(pair)
    a, b = pairs.a.record(at_a), pairs.b.record(at_b)
    if pairs.inputs[pair]:
        return Root(a, b, inputs_equal=False)
    if pairs.roots[pair]:
        return Root(a, b, inputs_equal=True)
    inferred = alone and a.site.kind == "op" and _all_seen(pairs)
    return Root(a, b, inputs_equal=True if inferred else None, inferred=inferred)


def kind_of(root: Root) -> str:
    """The kind of difference that this is: of `TraceDifference.kind`, apart from what the runs'
    environments say."""
    record = root.a or root.b
    assert record is not None
    site = record.site
    if site.kind in {"environment", "rng", "batch", "buffer"}:
        return "order" if _alone(root) and site.kind != "environment" else site.kind
    if _alone(root):
        return "order"
    if root.inputs_equal is False and site.kind in _CALLS:
        return "input"
    if site.kind == "parameter":
        # Nothing that was seen made them: the first weights, or what an optimizer left.
        return "input" if site.phase == "setup" or record.step == SETUP else "optimizer"
    return "optimizer" if "optimizer" in (site.kind, site.phase) else "op"


def _alone(root: Root) -> bool:
    return root.a is None or root.b is None


def _all_seen(pairs: Pairs) -> bool:
    """Whether every op of both runs has a record here: then equal records before mean that equal
    inputs must have come."""
    return all(
        trace.meta.level == "op" and not trace.meta.coverage.not_covered and len(trace) == len(side)
        for trace, side in ((pairs.a, pairs.side_a), (pairs.b, pairs.side_b))
    )


def _first_alone(pairs: Pairs) -> tuple[float, Root] | None:
    """The first record that has no partner, and where it stands in run a: between two places for
    one of run b. A switch, where there is one among them at the same step, before all."""
    at = pairs.alignment
    found = []
    for trace, side, only in (
        (pairs.a, pairs.side_a, at.only_a),
        (pairs.b, pairs.side_b, at.only_b),
    ):
        for place in _candidates(trace, side, only):
            record = trace.record(int(side.number[place]))
            if side is pairs.side_a:
                found.append((float(place), Root(record, None, None)))
            else:
                found.append((_place_in_a(pairs, place), Root(None, record, None)))
    if not found:
        return None
    switches = [one for one in found if _site(one[1]).kind == "environment"]
    return min(switches or found, key=lambda one: one[0])


def _candidates(trace: Trace, side: Side, only: Ints) -> list[int]:
    """The first of these records, and the first of them that is a switch."""
    if not len(only):
        return []
    switch = np.array([site.kind == "environment" for site in trace.sites], np.bool_)
    switches = only[switch[trace.arrays.site[side.number[only]]]]
    return [int(some[0]) for some in (only, switches) if len(some)]


def _place_in_a(pairs: Pairs, place: int) -> float:
    at = pairs.alignment
    before = at.at_a[at.at_b < place]
    return float(before.max()) + 0.5 if len(before) else -0.5


def _site(root: Root) -> Site:
    record = root.a or root.b
    assert record is not None
    return record.site
