"""One step of two runs, compared while the second one goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nondet_probe.probe.differ.first import first_difference
from nondet_probe.probe.differ.pairs import pair_up
from nondet_probe.probe.differ.reach import reached
from nondet_probe.probe.differ.scope import scope, without_generators
from nondet_probe.probe.differ.sides import sides
from nondet_probe.records.difference import Root
from nondet_probe.records.trace import Site, TraceMeta, Words
from nondet_probe.records.trace_reader import Columns, Trace

__all__ = ["Row", "first_of_step", "trace_of_step"]

Row = tuple[int, Words | None, Words | None]
"""A record of a step: its site's number, its inputs, its outputs."""


def first_of_step(a: Trace, b: Trace, *, whole: bool, unseeded: set[str]) -> Root | None:
    """The first difference of two traces of one step; None where no two records differ, though one
    run may have some that the other has not. whole: the second run is through with the step; where
    it is not, what only the first has is still to come. unseeded: generators that are left out."""
    side_a, side_b, _ = scope(a, b, *sides(a, b))
    side_a, side_b = without_generators(a, b, side_a, side_b, unseeded)
    step = int(b.arrays.step[0]) if len(b) else None
    pairs, _ = reached(pair_up(a, b, side_a, side_b), (None, None if whole else step))
    first = first_difference(pairs) if pairs.differ.any() else None
    return first[0] if first is not None else None


def trace_of_step(
    directory: Path, meta: TraceMeta, sites: Sequence[Site], step: int, rows: Sequence[Row]
) -> Trace:
    """These rows as a trace; its records are numbered from 0."""
    table = np.array(
        [(site, *(inputs or (0, 0)), *(outputs or (0, 0))) for site, inputs, outputs in rows],
        np.int64,
    ).reshape(-1, 5)
    used, site = np.unique(table[:, 0], return_inverse=True)
    _, in0, in1, out0, out1 = table.T
    columns = Columns(
        np.arange(len(rows)),
        np.full(len(rows), step),
        site,
        in0,
        in1,
        out0,
        out1,
        np.array([inputs is not None for _, inputs, _ in rows], np.bool_),
        np.array([outputs is not None for _, _, outputs in rows], np.bool_),
    )
    return Trace(directory, replace(meta), [sites[number] for number in used.tolist()], columns, {})
