"""What differs between two traces, what came first, and what only follows from it."""

from __future__ import annotations

from collections import Counter

import numpy as np

from nondet_probe.probe.differ.environment import changes, decisive, machines
from nondet_probe.probe.differ.first import first_difference, kind_of, root_of
from nondet_probe.probe.differ.limits import limits
from nondet_probe.probe.differ.pairs import Pairs, pair_up
from nondet_probe.probe.differ.reach import reached
from nondet_probe.probe.differ.scope import (
    ended_early,
    named,
    scope,
    unseeded,
    without_generators,
)
from nondet_probe.probe.differ.sides import Ints, Side, sides
from nondet_probe.probe.differ.steps import count_steps
from nondet_probe.records.difference import Root, TraceDifference
from nondet_probe.records.trace import Site, TraceRecord
from nondet_probe.records.trace_reader import Trace

__all__ = ["COLLISION", "MAX_ROOTS", "diff_traces"]

First = tuple[Root, int | None]
"""What `first_difference` gives where something differs."""

COLLISION = 2.0**-62
"""Chance, at most, that two different tensors of up to a terabyte have one digest."""

MAX_ROOTS = 1000
"""Roots that are listed; further ones are counted."""


def diff_traces(
    a: Trace, b: Trace, until: tuple[int | None, int | None] = (None, None)
) -> TraceDifference:
    """What differs between two traces. until: of a and of b, as `reached` takes it.

    `roots` begins with the first difference, whatever it is (`first_difference`); after it come all
    other records with equal inputs and another output. Where the runs' environments differ in what
    alone could make them differ, `kind` is "environment", and the rest says where it first showed.

    Raises RecordError where the digests of the traces cannot be compared.
    """
    side_a, side_b, warnings = scope(a, b, *sides(a, b))
    pairs, cut = reached(pair_up(a, b, side_a, side_b), until)
    first = first_difference(pairs)
    if first is not None and _record(first[0]).site.kind == "rng":
        pairs, first, told = _beside_unseeded(pairs, first, until)
        warnings += told
    side_a, side_b, at = pairs.side_a, pairs.side_b, pairs.alignment
    pair = first[1] if first is not None else None
    others = [place for place in np.flatnonzero(pairs.roots).tolist() if place != pair]
    roots = [] if first is None else [first[0]]
    roots += [root_of(pairs, place) for place in others[: MAX_ROOTS - 1]]
    machine = machines(a.meta, b.meta)
    found = TraceDifference(
        equal=first is None and len(at.at_a) > 0,
        a=str(a.directory),
        b=str(b.directory),
        compared=len(at.at_a),
        alignment=at.method,
        propagated=int(pairs.differ.sum()) - len(others) - (pair is not None),
        roots=roots,
        more_roots=len(others) + (first is not None) - len(roots),
        not_aligned_a=_by_site(a, side_a, at.only_a),
        not_aligned_b=_by_site(b, side_b, at.only_b),
        environment=changes(a.meta, b.meta),
        coverage_a=a.meta.coverage,
        coverage_b=b.meta.coverage,
        collision_bound=pairs.digests() * COLLISION,
        warnings=[*warnings, *([machine] if machine else []), *ended_early(a, b), *cut],
        steps=count_steps(pairs, pair),
        meta_a=a.meta,
        meta_b=b.meta,
    )
    if first is not None:
        _locate(found, first[0], pairs)
        found.warnings += limits(pairs, first[0])
    return found


def _beside_unseeded(
    pairs: Pairs, first: First, until: tuple[int | None, int | None]
) -> tuple[Pairs, First | None, list[str]]:
    """What differs without the states of generators that nobody seeded, where these cannot be what
    made the runs differ: nothing else differs, or first an op that was given the same, or a setting
    of an optimizer."""
    a, b, side_a, side_b = pairs.a, pairs.b, pairs.side_a, pairs.side_b
    names = unseeded(a, b, side_a, side_b)
    if _record(first[0]).site.name not in names:
        return pairs, first, []
    others, _ = reached(pair_up(a, b, *without_generators(a, b, side_a, side_b, names)), until)
    then = first_difference(others)
    told = f"{named(sorted(names))} in other states all along"
    if then is None:
        return others, None, [f"{told} and drawn from; nothing that was recorded came of it"]
    root, site = then[0], _record(then[0]).site
    settings = (site.phase, site.kind) == ("optimizer", "optimizer")
    if settings or (root.inputs_equal and not root.inferred and site.kind == "op"):
        what = "op" if site.kind == "op" else "setting of an optimizer"
        return others, then, [f"{told}, which is not why the first {what} that differs does"]
    return pairs, first, []


def _locate(found: TraceDifference, root: Root, pairs: Pairs) -> None:
    record = _record(root)
    site = record.site
    found.kind = "environment" if decisive(pairs.a.meta, pairs.b.meta) else kind_of(root)
    found.step, found.phase, found.op = record.step, site.phase, site.name
    found.module, found.file, found.line = site.module, site.file, site.line
    found.rank = pairs.a.meta.rank if root.a is not None else pairs.b.meta.rank
    found.inputs_equal = root.inputs_equal


def _record(root: Root) -> TraceRecord:
    record = root.a or root.b
    assert record is not None
    return record


def _by_site(trace: Trace, side: Side, only: Ints) -> dict[str, int]:
    """Site in words -> how many of these records, most frequent first."""
    numbers, counts = np.unique(trace.arrays.site[side.number[only]], return_counts=True)
    named: Counter[str] = Counter()
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        named[_words(trace.sites[number])] += count
    return dict(named.most_common())


def _words(site: Site) -> str:
    """ "forward op aten.relu.default in net.0 (model.py:7)"."""
    text = f"{site.phase} {site.kind} {site.name}"
    if site.module is not None:
        text += f" in {site.module or 'the model itself'}"
    if site.file is not None:
        text += f" ({site.file}" + (f":{site.line})" if site.line is not None else ")")
    return text
