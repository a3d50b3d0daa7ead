"""Drift in words, tables, JSON, and as one HTML file that needs nothing else."""

from __future__ import annotations

import math
from typing import Any

from nondet_probe.records.codec import encode
from nondet_probe.records.drift import Drift, DriftCurve
from nondet_probe.report.explain import GLOSSARY
from nondet_probe.report.findings import Section, render_findings
from nondet_probe.report.keyfigures import KeyFigure
from nondet_probe.report.spell import clip, count, number, one_line, percent, plural
from nondet_probe.report.tables import Table

__all__ = [
    "drift_json",
    "drift_limits",
    "drift_notes",
    "drift_tables",
    "drift_verdict",
    "render_drift",
]

_MOST_ROWS = 20
_MOST_TOLD = 3

_WORDS = {
    "sketch": "4,096 numbers that stand for all parameters of a model; from two of them comes the "
    "distance of the models",
    "distance": "the 2-norm of the difference of all parameters, as the sketches tell it",
    "relative": "the distance over the 2-norm of the first run's parameters",
}


def drift_verdict(drift: Drift) -> str:
    """One sentence a run, of the first few."""
    told = [_sentence(drift, curve) for curve in drift.curves[:_MOST_TOLD]]
    if more := len(drift.curves) - _MOST_TOLD:
        told += [f"Of {plural(more, 'further run')} the tables tell."] if more > 0 else []
    return " ".join(told)


def drift_notes(drift: Drift) -> list[str]:
    """What the reader must know beside the verdict."""
    left_out = [
        f"{clip(curve.run, 80)}: {plural(len(curve.steps), 'step')} compared; left out are "
        f"{count(curve.only_here)} that only it has a sketch of and "
        f"{count(curve.only_reference)} that only the first run has"
        for curve in drift.curves
        if curve.only_here or curve.only_reference
    ]
    return [one_line(sentence) for sentence in drift.warnings] + left_out


def drift_limits(drift: Drift) -> list[str]:
    """How far the figures can be trusted."""
    return [
        f"Sketched were {plural(drift.parameters, 'parameter')} of together "
        f"{plural(drift.elements, 'element')}; buffers and the state of optimizers are not in it.",
        f"A distance is within {percent(drift.error)} of the true one with probability "
        f"{drift.confidence:g} or more (format {one_line(drift.form, 40)}).",
        "Equal sketches do not prove equal bits: nondet-probe diff compares digests.",
    ]


def drift_tables(drift: Drift) -> list[Table]:
    """One a run: step, distance, relative distance; at most 20 steps, the first that differs, the
    first and the last of all among them."""
    return [_table(curve) for curve in drift.curves]


def drift_json(drift: Drift) -> dict[str, Any]:
    """As docs/sketch.md describes it."""
    return {
        "verdict": drift_verdict(drift),
        "equal": drift.clean,
        **encode(drift),
        "notes": drift_notes(drift),
        "limits": drift_limits(drift),
    }


def render_drift(drift: Drift) -> str:
    """The page as the text of an HTML document; the same drift gives the same bytes.

    Raises UsageError when jinja2 or matplotlib is missing.
    """
    from nondet_probe.report.driftplot import drift_plot

    clean = drift.clean
    farthest = max(drift.curves, key=_last_relative)
    figures = [
        KeyFigure("Runs", count(len(drift.curves) + 1), "measured against the first"),
        KeyFigure(
            "Farthest at its end",
            number(_last_relative(farthest)),
            f"of the norm: {clip(farthest.run, 40)}",
        ),
        KeyFigure("Parameters", count(drift.elements), "elements, all sketched together"),
    ]
    return render_findings(
        command="drift",
        outcome="clean" if clean else "nondeterministic",
        outcome_name="No distance" if clean else "Drift",
        verdict=drift_verdict(drift),
        notes=drift_notes(drift),
        subject=f"{clip(drift.reference, 80)} and {plural(len(drift.curves), 'further run')}",
        figures=figures,
        sections=[
            Section(
                "How far apart the runs are",
                "Each curve is one run, measured against the first.",
                picture=drift_plot(drift, "drift"),
                caption="The vertical axis counts in powers of ten; exact zeros stand at its "
                "bottom. A straight rising line is exponential growth.",
            ),
            Section(
                "The figures",
                "Row s is the state that step s left.",
                tables=drift_tables(drift),
            ),
            Section("How far to trust it", sentences=drift_limits(drift)),
        ],
        glossary=_WORDS | {"step": GLOSSARY["step"]},
    )


def _sentence(drift: Drift, curve: DriftCurve) -> str:
    run, reference = clip(curve.run, 80), clip(drift.reference, 80)
    step, distance, relative = curve.steps[-1], curve.distances[-1], curve.relative[-1]
    if curve.clean:
        return (
            f"{run} has the sketches of {reference} at all {plural(len(curve.steps), 'step')} "
            "compared: no distance was seen."
        )
    if curve.first is None:
        return f"{run} has the sketches of {reference}, but parameters that are not finite."
    start = f"{run} differs from {reference} from step {curve.first} on; after step {step} "
    if not math.isfinite(distance):
        return start + "the distance is not finite."
    return start + (
        f"their parameters are {number(distance)} apart, {number(relative)} of the norm."
    )


def _last_relative(curve: DriftCurve) -> float:
    """Of the last step; what is not finite counts as farthest."""
    value = curve.relative[-1]
    return math.inf if math.isnan(value) else value


def _table(curve: DriftCurve) -> Table:
    places = _spread(len(curve.steps))
    if curve.first is not None:
        places = sorted({*places, curve.steps.index(curve.first)})
    rows = [
        [str(curve.steps[i]), _spelled(curve.distances[i]), _spelled(curve.relative[i])]
        for i in places
    ]
    return Table(clip(curve.run, 80), ["Step", "Distance", "Relative"], rows)


def _spread(steps: int) -> list[int]:
    """Places of at most so many rows, evenly, with the first and the last."""
    if steps <= _MOST_ROWS:
        return list(range(steps))
    rows = _MOST_ROWS - 1
    return [round(i * (steps - 1) / (rows - 1)) for i in range(rows)]


def _spelled(value: float) -> str:
    return number(value, 4) if math.isfinite(value) else "not finite"
