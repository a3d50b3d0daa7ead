"""What became of each step's records, phase by phase."""

from __future__ import annotations

import numpy as np

from nondet_probe.probe.differ.pairs import Pairs
from nondet_probe.probe.differ.sides import Ints, Side
from nondet_probe.records.difference import StepCount
from nondet_probe.records.trace import PHASES
from nondet_probe.records.trace_reader import Trace

__all__ = ["count_steps"]

_WIDTH = len(PHASES)


def count_steps(pairs: Pairs, first: int | None) -> list[StepCount]:
    """In order of step and phase. first: the pair that is a root for being the first to differ."""
    at = pairs.alignment
    of_pairs = _rows(pairs.a, pairs.side_a, at.at_a)
    roots = pairs.roots.copy()
    if first is not None:
        roots[first] = True
    parts = [
        of_pairs[~pairs.differ],
        of_pairs[roots],
        of_pairs[pairs.differ & ~roots],
        _rows(pairs.a, pairs.side_a, at.only_a),
        _rows(pairs.b, pairs.side_b, at.only_b),
    ]
    counts: dict[int, list[int]] = {}
    for column, part in enumerate(parts):
        rows, numbers = np.unique(part, return_counts=True)
        for row, number in zip(rows.tolist(), numbers.tolist(), strict=True):
            counts.setdefault(row, [0] * len(parts))[column] = number
    return [StepCount(row // _WIDTH, PHASES[row % _WIDTH], *counts[row]) for row in sorted(counts)]


def _rows(trace: Trace, side: Side, at: Ints) -> Ints:
    """Step and phase of these places as one number."""
    phases = np.array([PHASES.index(site.phase) for site in trace.sites] or [0], np.int64)
    return side.step[at] * _WIDTH + phases[trace.arrays.site[side.number[at]]]
