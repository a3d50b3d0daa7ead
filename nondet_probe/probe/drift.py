"""Drift: the distances between recorded runs, from the sketches in their traces alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from nondet_probe.bits import SKETCH_FORMAT, bit_equal, sketch_distance, sketch_norm
from nondet_probe.bits.sketch import BUCKETS, sketch_error
from nondet_probe.errors import RecordError, UsageError, near_matches
from nondet_probe.records.drift import Drift, DriftCurve
from nondet_probe.records.trace_reader import open_sketches
from nondet_probe.records.trace_sketches import Layout, SketchReader

__all__ = ["CONFIDENCE", "drift"]

CONFIDENCE = 0.95
"""With which the stated error of a distance holds, at least."""

_MOST_NAMES = 3


def drift(runs: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> Drift:
    """How far each run is from the first one, at every step that both have a sketch of.

    runs: folders of traces that were recorded with sketches, two or more; of a trace of several
    processes the lowest rank. progress: called with (steps done, steps in all). Raises UsageError
    where two cannot be compared (no sketches, no step in common, other parameters), RecordError for
    what is no trace.
    """
    if len(runs) < 2:
        raise UsageError(f"drift needs two runs or more to compare, got {len(runs)}")
    with ExitStack() as held:
        readers = [held.enter_context(_opened(run)) for run in runs]
        reference, others = readers[0], readers[1:]
        shared = [sorted(set(reference.steps) & set(other.steps)) for other in others]
        for other, steps in zip(others, shared, strict=True):
            _check(reference, other, steps)
        done, total = 0, sum(map(len, shared))
        curves = []
        for other, steps in zip(others, shared, strict=True):
            curve = _curve(reference, other)
            for step in steps:
                _measure(curve, reference, other, step)
                done += 1
                if progress is not None:
                    progress(done, total)
            curves.append(curve)
        layout = reference.layout(max(max(steps) for steps in shared))
        return Drift(
            reference=str(reference.directory),
            curves=curves,
            form=SKETCH_FORMAT,
            parameters=len(layout),
            elements=sum(math.prod(shape) for shape in layout.values()),
            error=sketch_error(CONFIDENCE),
            confidence=CONFIDENCE,
            warnings=[sentence for reader in readers for sentence in _warnings(reader)],
        )


def _opened(run: Path) -> SketchReader:
    reader = open_sketches(run)
    if not reader.steps:
        with reader:
            raise UsageError(
                f"{run} holds no sketches: record it with nondet-probe record --sketch, or "
                "nondet_probe.record(..., sketch=True)"
            )
    return reader


def _check(reference: SketchReader, other: SketchReader, steps: Sequence[int]) -> None:
    """That the sketches of these steps can be compared; UsageError says why not."""
    a, b = reference.directory, other.directory
    if not steps:
        raise UsageError(
            f"{a} and {b} have no step in common: the first has sketches of steps "
            f"{_span(reference)}, the other of {_span(other)}"
        )
    for step in steps:
        for reader in (reference, other):
            if reader.form(step) != SKETCH_FORMAT:
                raise UsageError(
                    f"{reader.directory}: the sketch of step {step} is of format "
                    f"{reader.form(step)!r}; this nondet_probe compares {SKETCH_FORMAT!r}"
                )
        theirs = other.layout(step)
        if reference.layout(step) != theirs:
            raise UsageError(
                f"{a} and {b} sketched other parameters at step {step}, so there is no distance: "
                + _difference(reference.layout(step), theirs)
                + ". Record both in the same way: with model= or without, and the same names"
            )


def _difference(a: Layout, b: Layout) -> str:
    parts = []
    for which, here, there in (("first", a, b), ("other", b, a)):
        only = [name for name in here if name not in there]
        if only:
            near = near_matches(only[0], there)
            shown = ", ".join(only[:_MOST_NAMES]) + ", ..." * (len(only) > _MOST_NAMES)
            hint = f" (near: {near[0]})" if near else ""
            parts.append(f"only the {which} has {shown}{hint}")
    if not parts:
        parts = [
            f"{name} is of shape {shape} and of shape {b[name]}"
            for name, shape in a.items()
            if shape != b[name]
        ][:_MOST_NAMES]
    return "; ".join(parts)


def _span(reader: SketchReader) -> str:
    return f"{reader.steps[0]} to {reader.steps[-1]}"


def _curve(reference: SketchReader, other: SketchReader) -> DriftCurve:
    here, there = set(other.steps), set(reference.steps)
    return DriftCurve(
        run=str(other.directory),
        steps=[],
        distances=[],
        relative=[],
        first=None,
        only_here=len(here - there),
        only_reference=len(there - here),
    )


def _measure(curve: DriftCurve, reference: SketchReader, other: SketchReader, step: int) -> None:
    a, b = _buckets(reference, step), _buckets(other, step)
    distance, norm = sketch_distance(b, a), sketch_norm(a)
    curve.steps.append(step)
    curve.distances.append(distance)
    if norm == 0.0:
        curve.relative.append(0.0 if distance == 0.0 else math.inf)
    else:
        curve.relative.append(distance / norm)
    if curve.first is None and not bit_equal(a, b):
        curve.first = step


def _buckets(reader: SketchReader, step: int) -> Tensor:
    found = reader.buckets(step)
    if len(found) != BUCKETS:
        raise RecordError(
            f"{reader.directory}: the sketch of step {step} has {len(found)} buckets, not {BUCKETS}"
        )
    return torch.from_numpy(found)


def _warnings(reader: SketchReader) -> list[str]:
    meta, run = reader.meta, reader.directory
    found = []
    if meta.status != "complete":
        why = f": {meta.failure}" if meta.failure else ""
        found.append(f"{run} did not come to its end (status {meta.status}{why})")
    if meta.world > 1:
        found.append(f"{run} is of {meta.world} processes; only rank {meta.rank} is compared")
    missed = sum(
        times for reason, times in meta.coverage.not_covered.items() if reason.startswith("sketch:")
    )
    if missed:
        found.append(f"{run}: {missed} times a parameter could not be sketched; nondet-probe show")
    return found
