"""Two traces made comparable: numbers that say which records of both are of one kind."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from nondet_probe.records.trace import Site
from nondet_probe.records.trace_reader import Trace

__all__ = ["Bools", "Ints", "Side", "key_of", "mixed", "sides"]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_CALLS = {"op", "module", "collective"}
_SEED = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True)
class Side:
    """The records of one trace that take part, one array each, in the order of steps and of the
    trace.

    number: place in the trace; step; key: equal in both traces for sites of equal phase, kind, name
    and module, so that two checkouts of a program align; place: equal where file and line are too,
    the same as key where lines cannot be compared; op: equal where phase, kind and name are; in0,
    in1, out0, out1: digests, 0 where missing; has_inputs, has_outputs; proves: whether equal inputs
    mean that the call was given the same, not just the same arguments beside its tensors; movable:
    whether records of one key may be paired in another order than they have (calls may; batches and
    the state of generators may not).
    """

    number: Ints
    step: Ints
    key: Ints
    place: Ints
    op: Ints
    in0: Ints
    in1: Ints
    out0: Ints
    out1: Ints
    has_inputs: Bools
    has_outputs: Bools
    proves: Bools
    movable: Bools

    def __len__(self) -> int:
        return len(self.number)

    def at(self, chosen: Ints | Bools) -> Side:
        """These records only, in this order."""
        return Side(*(getattr(self, item.name)[chosen] for item in fields(self)))


def sides(a: Trace, b: Trace) -> tuple[Side, Side]:
    """Both traces, with one numbering of keys."""
    keys: dict[tuple[object, ...], int] = {}
    places: dict[tuple[object, ...], int] = {}
    ops: dict[tuple[object, ...], int] = {}
    lines = _lines_agree(a, b)
    tensors = a.meta.inputs and b.meta.inputs
    same_arguments = a.meta.inputs == b.meta.inputs
    found = []
    for trace in (a, b):
        rows = [
            (
                keys.setdefault(key_of(site), len(keys)),
                places.setdefault((*key_of(site), *(_line(site) if lines else ())), len(places)),
                ops.setdefault((site.phase, site.kind, site.name), len(ops)),
                site.kind in _CALLS,
                site.kind == "op",
                # Digested before it was waited for: whatever lay there.
                site.kind != "collective",
            )
            for site in trace.sites
        ]
        table = np.array(rows, np.int64).reshape(-1, 6)
        of = trace.arrays
        key, place, op, call, of_op, given = (column[of.site] for column in table.T)
        has_inputs = of.has_inputs & (given != 0) & (same_arguments | (of_op == 0))
        side = Side(
            of.number,
            of.step,
            key,
            place,
            op,
            of.in0,
            of.in1,
            of.out0,
            of.out1,
            has_inputs,
            of.has_outputs,
            has_inputs & (tensors | (of_op == 0)),
            call != 0,
        )
        # A schedule may not start a step anew, but a foreign trace may hold anything.
        found.append(side if _rising(side.step) else side.at(np.argsort(side.step, kind="stable")))
    return found[0], found[1]


def mixed(*columns: Ints | Bools) -> Ints:
    """One number for each row: equal rows have equal ones, others by an accident of 2^-64."""
    total = np.full(len(columns[0]), _SEED)
    for column in columns:
        total ^= column.astype(np.int64).view(np.uint64)
        total = (total ^ (total >> np.uint64(30))) * _MIX[0]
        total = (total ^ (total >> np.uint64(27))) * _MIX[1]
        total = (total ^ (total >> np.uint64(31))) + _SEED
    return total.view(np.int64)


def _rising(values: Ints) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def key_of(site: Site) -> tuple[object, ...]:
    """Equal for sites that are one in two runs of a program, or in two checkouts of it."""
    # Of a module there are also its second forward and the gradients that came back to it.
    note = site.note if site.kind == "module" else None
    return site.phase, site.kind, site.name, site.module, note


def _line(site: Site) -> tuple[object, ...]:
    # The name alone: the folders of two checkouts differ.
    return (PurePath(site.file).name if site.file is not None else None), site.line


def _lines_agree(a: Trace, b: Trace) -> bool:
    """Whether one program's lines are all lines of the other: no line of it has moved."""
    of_a, of_b = ({_line(site) for site in trace.sites} for trace in (a, b))
    return of_a <= of_b or of_b <= of_a
