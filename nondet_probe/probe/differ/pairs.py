"""The aligned records of two traces, with what differs in each pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nondet_probe.probe.differ.align import Alignment, align, inputs_differ, outputs_differ
from nondet_probe.probe.differ.explained import explained
from nondet_probe.probe.differ.sides import Bools, Ints, Side
from nondet_probe.records.trace_reader import Trace

__all__ = ["Pairs", "pair_up"]


@dataclass(frozen=True)
class Pairs:
    """a, b with their sides and the alignment of these; and one array each over the pairs.

    inputs: both have a digest of inputs, and not the same; differ: these or the outputs; roots:
    equal inputs, of which this can be told, and other outputs, and nothing before explains that.
    """

    a: Trace
    b: Trace
    side_a: Side
    side_b: Side
    alignment: Alignment
    inputs: Bools
    differ: Bools
    roots: Bools

    def numbers(self, pair: int) -> tuple[int, int]:
        """Of its records, in both traces."""
        at = self.alignment
        return int(self.side_a.number[at.at_a[pair]]), int(self.side_b.number[at.at_b[pair]])

    def digests(self) -> int:
        """How many digests were compared with another one."""
        at, a, b = self.alignment, self.side_a, self.side_b
        inputs = a.has_inputs[at.at_a] & b.has_inputs[at.at_b]
        outputs = a.has_outputs[at.at_a] & b.has_outputs[at.at_b]
        return int(inputs.sum()) + int(outputs.sum())


def pair_up(a: Trace, b: Trace, side_a: Side, side_b: Side) -> Pairs:
    """Align the sides of two traces and compare what is aligned."""
    found = align(side_a, side_b)
    at_a, at_b = found.at_a, found.at_b
    inputs = inputs_differ(side_a, side_b, at_a, at_b)
    outputs = outputs_differ(side_a, side_b, at_a, at_b)
    roots = outputs & ~inputs & side_a.proves[at_a] & side_b.proves[at_b]
    site = a.arrays.site[side_a.number[at_a]]
    modules = np.flatnonzero(roots & _is_module(a, site))
    if len(modules):
        differ, step = inputs | outputs, side_a.step[at_a]
        roots[modules[explained(modules, differ, step, a.sites, site)]] = False
    return Pairs(a, b, side_a, side_b, found, inputs, inputs | outputs, roots)


def _is_module(trace: Trace, site: Ints) -> Bools:
    modules = np.array([one.kind == "module" for one in trace.sites], np.bool_)
    return modules[site] if len(modules) else np.zeros(len(site), np.bool_)
