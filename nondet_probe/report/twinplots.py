"""Several twins in one picture: the fan of their distances, and how they end by the step of change.

Pictures are inline SVGs as those of `nondet_probe.report.plots`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nondet_probe.records import TwinRecord
from nondet_probe.report.axes import (
    Decades,
    Floats,
    colour,
    frame,
    heading,
    label_ends,
    note,
    step_axis,
)
from nondet_probe.report.spell import number, plural
from nondet_probe.report.svg import blank, drawing, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["fan_plot", "onset_plot"]

_HEIGHT = 290


def fan_plot(twin: TwinRecord, key: str) -> str | None:
    """Relative distances of all twins, faint, their quartiles as a band with the median in it, and
    the control at zero; None where there is one twin, or no step."""
    every = np.asarray(twin.series.get("twins_distance", ()), dtype=np.float64)
    fan = np.asarray(twin.series.get("twins_fan", ()), dtype=np.float64)
    if every.ndim != 2 or not len(every) or fan.shape != (len(every), 3):
        return None
    scale = Decades.of(every.ravel())
    low, middle, high = (scale.position(fan[:, place]) for place in range(3))
    steps = np.arange(len(every))
    with drawing():
        figure = blank(_HEIGHT)
        axes = figure.add_axes(frame(_HEIGHT, right=62))
        scale.apply(axes)
        step_axis(axes, len(every))
        heading(axes, "relative distance between run and twins, log scale")
        for place in range(every.shape[1]):
            axes.plot(
                steps, scale.position(every[:, place]), color=colour("twin"), alpha=0.45, lw=0.8
            )
        axes.fill_between(steps, low, high, color=colour("twin"), alpha=0.3, linewidth=0)
        axes.plot(steps, middle, color=colour("twin"), linewidth=2.2)
        if twin.control_identical:
            _flat(axes, len(every), scale)
        finite = middle[np.isfinite(middle)]
        if finite.size:
            ends = [(float(finite[-1]), "median", "twin")]
            label_ends(axes, ends, gap=0.075 * (scale.high - scale.floor))
        text = (
            f"{plural(every.shape[1], 'twin')} over {plural(len(every), 'step')}: at the end the "
            f"median relative distance is {number(float(fan[-1, 1]))}, the quartiles "
            f"{number(float(fan[-1, 0]))} and {number(float(fan[-1, 2]))}."
        )
        return inline_svg(figure, key, "Relative distance of all twins", text)


def onset_plot(twin: TwinRecord, key: str) -> str | None:
    """How far the twins are away at the end by the step of their change, and below it how much they
    predict otherwise, where that is known; None without onset."""
    shown = [one for one in twin.onset if one.distance]
    if not shown:
        return None
    predicted = [
        (one.step, [share for share in one.disagreement if share is not None]) for one in shown
    ]
    predicted = [(step, shares) for step, shares in predicted if shares]
    height = _HEIGHT + 170 if predicted else _HEIGHT
    scale = Decades.of(*(np.asarray(one.distance, dtype=np.float64) for one in shown))
    steps = max(twin.steps, shown[-1].step + 1)
    with drawing():
        figure = blank(height)
        axes = figure.add_axes(frame(height, bottom=42 + height - _HEIGHT))
        scale.apply(axes)
        step_axis(axes, steps, label=not predicted)
        heading(axes, "relative distance at the end, log scale")
        _dots(axes, [(one.step, one.distance) for one in shown], scale.position)
        below = axes
        if predicted:
            below = figure.add_axes(frame(height, top=_HEIGHT + 14))
            step_axis(below, steps)
            heading(below, "predicted otherwise at the end, percent")
            below.grid(axis="y", linewidth=0.8)
            _dots(below, predicted, lambda shares: 100.0 * shares)
            below.set_ylim(bottom=0.0, top=max(below.get_ylim()[1], 1.0))
        below.set_xlabel("training step of the change")
        last = shown[-1]
        text = (
            f"The change was made at {plural(len(shown), 'step')}: of that at step {last.step} the "
            f"median relative distance at the end is {number(_median(last.distance))}."
        )
        return inline_svg(figure, key, "How the twins end, by the step of the change", text)


def _dots(
    axes: Axes, found: Sequence[tuple[int, list[float]]], place: Callable[[Floats], Floats]
) -> None:
    """One dot a twin, and a line through the medians."""
    for step, values in found:
        shown = place(np.asarray(values, dtype=np.float64))
        axes.plot([step] * len(values), shown, "o", color=colour("twin"), alpha=0.35, ms=5)
    axes.plot(
        [step for step, _ in found],
        place(np.array([_median(values) for _, values in found])),
        color=colour("twin"),
        marker="o",
        markersize=5,
    )


def _median(values: list[float]) -> float:
    """As the fan has it: what is no number counts as infinite."""
    found: Floats = np.asarray(values, dtype=np.float64)
    return float(np.median(np.where(np.isnan(found), np.inf, found)))


def _flat(axes: Axes, steps: int, scale: Decades) -> None:
    last = max(steps - 1, 1)
    axes.plot([0, last], [scale.floor] * 2, color=colour("control"), linewidth=2.2)
    note(
        axes,
        last,
        scale.floor,
        "control: exactly 0",
        "control",
        up=4,
        anchor="right",
        vertical="bottom",
        bold=True,
    )
