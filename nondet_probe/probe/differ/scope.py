"""What of two traces can be compared at all."""

from __future__ import annotations

import numpy as np

from nondet_probe.errors import RecordError
from nondet_probe.probe.differ.sides import Bools, Side
from nondet_probe.records.trace_reader import Trace

__all__ = [
    "UNSEEDED",
    "ended_early",
    "last_step",
    "named",
    "scope",
    "unseeded",
    "without_generators",
]


UNSEEDED = frozenset(("python", "numpy"))
"""Python's and NumPy's own generators, from which much draws that has no part in a training."""


def scope(a: Trace, b: Trace, of_a: Side, of_b: Side) -> tuple[Side, Side, list[str]]:
    """The records that both recordings were asked for, and in words what was left out.

    Raises RecordError where the digests are of two formats: then nothing can be compared.
    """
    if a.meta.digest_format != b.meta.digest_format:
        raise RecordError(
            f"{a.directory} has digests of format {a.meta.digest_format!r}, {b.directory} of "
            f"{b.meta.digest_format!r}: they cannot be compared, record one of the runs again"
        )
    told = []
    if a.meta.rank != b.meta.rank:
        told.append(f"rank {a.meta.rank} of run a is compared with rank {b.meta.rank} of run b")
    if a.meta.world != b.meta.world:
        told.append(f"run a has {a.meta.world} processes and run b has {b.meta.world}")
    if a.meta.steps != b.meta.steps:
        kept_a, kept_b = (np.isin(x.step, y.step) for x, y in ((of_a, of_b), (of_b, of_a)))
        left = int((~kept_a).sum()), int((~kept_b).sum())
        of_a, of_b = of_a.at(kept_a), of_b.at(kept_b)
        told.append(
            "the runs were recorded for different steps: those that only one has were left out "
            f"({left[0]} records of run a, {left[1]} of run b)"
        )
    if (a.meta.level, a.meta.names) != (b.meta.level, b.meta.names):
        kept_a, kept_b = (np.isin(x.key, y.key) for x, y in ((of_a, of_b), (of_b, of_a)))
        left = int((~kept_a).sum()), int((~kept_b).sum())
        of_a, of_b = of_a.at(kept_a), of_b.at(kept_b)
        told.append(
            f"run a was recorded at {_asked(a)}, run b at {_asked(b)}: what only one of them "
            f"records was left out ({left[0]} records of run a, {left[1]} of run b)"
        )
    if a.meta.inputs != b.meta.inputs:
        told.append(
            "only one of the runs was recorded with the digests of inputs: those of calls were not "
            "compared"
        )
    of_a, of_b, idle = _without_idle(a, b, of_a, of_b)
    return of_a, of_b, told + idle


def _without_idle(a: Trace, b: Trace, of_a: Side, of_b: Side) -> tuple[Side, Side, list[str]]:
    """The records without those of generators that neither run drew from: unseeded, they begin
    every process in another state, and nothing comes of it."""
    idle = set(a.meta.idle) & set(b.meta.idle)
    states = [set(_states(trace, side, idle)) for trace, side in ((a, of_a), (b, of_b))]
    if states[0] == states[1]:
        return of_a, of_b, []
    apart = sorted({name for name, _ in states[0] ^ states[1]})
    return (
        *without_generators(a, b, of_a, of_b, idle),
        [
            f"{named(apart)} in other states in the two runs; neither run drew from "
            f"{'it' if len(apart) == 1 else 'them'} in its steps, so that was left out"
        ],
    )


def unseeded(a: Trace, b: Trace, of_a: Side, of_b: Side) -> set[str]:
    """Those of UNSEEDED that were in other states from their first record on."""
    names = set(UNSEEDED)
    first = [dict(reversed(_states(t, side, names))) for t, side in ((a, of_a), (b, of_b))]
    return {name for name in first[0].keys() & first[1].keys() if first[0][name] != first[1][name]}


def named(generators: list[str]) -> str:
    """ "the generator numpy was", "the generators numpy and python were"."""
    several = len(generators) > 1
    return f"the generator{'s' * several} {' and '.join(generators)} {'were' if several else 'was'}"


def without_generators(
    a: Trace, b: Trace, of_a: Side, of_b: Side, names: set[str]
) -> tuple[Side, Side]:
    """The records without the states of these generators of the process."""
    kept_a, kept_b = (~_of_generators(t, s, names) for t, s in ((a, of_a), (b, of_b)))
    return of_a.at(kept_a), of_b.at(kept_b)


def _of_generators(trace: Trace, side: Side, names: set[str]) -> Bools:
    """Which records of a side hold the state of one of these generators of the process."""
    of = [site.kind == "rng" and site.name in names for site in trace.sites]
    chosen: Bools = np.array(of or [False], np.bool_)[trace.arrays.site[side.number]]
    return chosen


def _states(trace: Trace, side: Side, names: set[str]) -> list[tuple[str, tuple[int, int]]]:
    found = np.flatnonzero(_of_generators(trace, side, names))
    of = trace.arrays
    return [
        (trace.sites[of.site[number]].name, (int(of.out0[number]), int(of.out1[number])))
        for number in side.number[found]
    ]


def ended_early(a: Trace, b: Trace) -> list[str]:
    """Runs that did not come to their end, in words."""
    told = []
    for name, trace in (("a", a), ("b", b)):
        if trace.meta.status == "running":
            told.append(
                f"run {name} is still being written, or its process was killed: it is known up to "
                f"{last_step(trace)}"
            )
        elif trace.meta.status == "failed":
            why = f" ({trace.meta.failure})" if trace.meta.failure else ""
            told.append(f"run {name} failed{why}: it is known up to {last_step(trace)}")
        elif trace.meta.status == "stopped":
            why = f" ({trace.meta.failure})" if trace.meta.failure else ""
            told.append(f"run {name} was stopped{why}: it is known up to {last_step(trace)}")
        elif trace.meta.exit_code:
            code = trace.meta.exit_code
            told.append(f"run {name} left with exit code {code}, in {last_step(trace)}")
    return told


def _asked(trace: Trace) -> str:
    names = trace.meta.names
    return f"level {trace.meta.level}" + (f" for names like {names!r}" if names is not None else "")


def last_step(trace: Trace) -> str:
    """The step that a trace ends in, in words."""
    steps = trace.arrays.step
    last = int(steps.max()) if len(steps) else -1
    return f"step {last}" if last >= 0 else "its setup"
