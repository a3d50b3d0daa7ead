"""The distances of recorded runs from the first one, step by step."""

from __future__ import annotations

import numpy as np

from nondet_probe.records.drift import Drift, DriftCurve
from nondet_probe.report.axes import Decades, colour, frame, heading, label_ends, step_axis
from nondet_probe.report.spell import clip, plural
from nondet_probe.report.svg import blank, drawing, inline_svg

__all__ = ["drift_plot"]

# Taken in turn; where they begin again, the lines are of another kind.
_COLOURS = ("twin", "run", "fit", "unsure", "bad", "control")
_LINES = ("-", (0, (5, 2)), (0, (1, 1.5)))
_HEIGHT = 320


def drift_plot(drift: Drift, key: str) -> str | None:
    """Relative distances over the steps as one inline SVG, exact zeros at the bottom; None where
    no distance is finite. key: an identifier of the figure within its page."""
    values = [np.asarray(curve.relative, dtype=np.float64) for curve in drift.curves]
    if not any(np.isfinite(series).any() for series in values):
        return None
    scale = Decades.of(*values)
    with drawing():
        figure = blank(_HEIGHT)
        axes = figure.add_axes(frame(_HEIGHT, right=96))
        scale.apply(axes)
        step_axis(axes, max(curve.steps[-1] for curve in drift.curves) + 1)
        heading(axes, "distance of the parameters over their norm, log scale")
        ends = []
        for place, (curve, series) in enumerate(zip(drift.curves, values, strict=True)):
            name = _COLOURS[place % len(_COLOURS)]
            shown = scale.position(series)
            axes.plot(
                curve.steps,
                shown,
                color=colour(name),
                linestyle=_LINES[place // len(_COLOURS) % len(_LINES)],
                marker="o" if len(shown) < 40 else "",
                markersize=4,
            )
            finite = shown[np.isfinite(shown)]
            if finite.size:
                ends.append((float(finite[-1]), _name(curve), name))
        low, high = axes.get_ylim()
        label_ends(axes, ends, gap=0.065 * (high - low), top=high)
        text = f"{plural(len(drift.curves), 'run')}, measured against {clip(drift.reference, 60)}."
        return inline_svg(figure, key, "Distance of recorded runs, step by step", text)


def _name(curve: DriftCurve) -> str:
    return clip(curve.run.rstrip("/").rpartition("/")[2] or curve.run, 14)
