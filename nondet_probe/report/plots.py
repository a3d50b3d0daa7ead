"""What one changed bit becomes, step by step: its distance, its spread, and the two losses.

Each function takes a record and the identifier of the figure within its page, and gives one inline
SVG, or None when the record holds nothing to draw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nondet_probe.records import Growth, TwinRecord
from nondet_probe.report.axes import (
    Decades,
    Floats,
    colour,
    curve,
    frame,
    heading,
    label_ends,
    note,
    step_axis,
)
from nondet_probe.report.spell import number, percent, plural
from nondet_probe.report.svg import blank, drawing, inline_svg
from nondet_probe.report.words import change_phrase, control_phrase, growth_phrase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distance_plot", "loss_plot", "series", "share_plot"]


def series(twin: TwinRecord, name: str) -> Floats:
    """A series as float64 [steps]; empty where the record has none."""
    return np.asarray(twin.series.get(name, ()), dtype=np.float64)


def distance_plot(twin: TwinRecord, key: str) -> str | None:
    """Relative distance of the twin over the steps, the fit of its growth, the control at zero."""
    distance = series(twin, "distance")
    if not len(distance):
        return None
    scale = Decades.of(distance)
    shown = scale.position(distance)
    with drawing():
        figure = blank(290)
        axes = figure.add_axes(frame(290))
        scale.apply(axes)
        step_axis(axes, len(distance))
        heading(axes, "relative distance between run and twin, log scale")
        if twin.control_identical:
            _draw_control(axes, len(distance), scale)
        else:
            _mark_step(axes, twin.control_differs_step, "control leaves the run")
        if twin.growth is not None:
            _draw_growth(axes, twin.growth, shown)
        curve(axes, shown, "twin")
        _mark_step(axes, twin.absorbed_step, "absorbed")
        _name_peak(axes, shown, "twin")
        text = f"{plural(len(distance), 'step')}: {change_phrase(twin)}; {control_phrase(twin)}."
        return inline_svg(figure, key, "Relative distance between the run and its twin", text)


def share_plot(twin: TwinRecord, key: str) -> str | None:
    """Share of the parameters' elements whose bits differ, in the twin and in the control."""
    fraction, control = series(twin, "fraction"), series(twin, "control")
    if not len(fraction):
        return None
    scale = Decades.of(fraction, control, np.array([1.0]))
    shown = scale.position(fraction)
    with drawing():
        figure = blank(290)
        axes = figure.add_axes(frame(290, right=58))
        scale.apply(axes)
        step_axis(axes, len(fraction))
        heading(axes, "share of elements whose bits differ, log scale")
        half = float(np.log10(0.5))
        axes.axhline(half, color=colour("muted"), linewidth=1, linestyle=(0, (2, 3)))
        ends = [(_last(shown), "twin", "twin"), (half, "half", "muted")]
        if twin.control_identical or not len(control):
            _draw_control(axes, len(fraction), scale)
        else:
            drawn = scale.position(control)
            curve(axes, drawn, "control", linestyle=(0, (4, 2)))
            ends.append((_last(drawn), "control", "control"))
        curve(axes, shown, "twin")
        label_ends(axes, ends, gap=0.075 * (scale.high - scale.floor))
        if twin.half_step is not None:
            axes.plot([twin.half_step], [half], "o", color=colour("ink"), markersize=5)
            # A rising curve leaves the room above it, to the left, and below it, to the right.
            early = twin.half_step < 0.45 * len(fraction)
            note(
                axes,
                twin.half_step,
                half,
                f"half differ after step {twin.half_step}",
                "ink",
                right=8 if early else -8,
                up=-5 if early else 5,
                anchor="left" if early else "right",
                vertical="top" if early else "bottom",
            )
        text = (
            f"At the end {percent(float(fraction[-1]))} of the elements differ in the twin; "
            f"{control_phrase(twin)}."
        )
        return inline_svg(figure, key, "Share of elements whose bits differ", text)


def loss_plot(twin: TwinRecord, key: str) -> str | None:
    """The losses of the run and its twin, and below it how far they are apart."""
    run, other = series(twin, "loss"), series(twin, "loss_twin")
    steps = min(len(run), len(other))
    if not steps:
        return None
    run, other = run[:steps], other[:steps]
    with np.errstate(invalid="ignore"):
        apart = np.abs(run - other)
    scale = Decades.of(apart)
    with drawing():
        figure = blank(380)
        above = figure.add_axes(frame(380, right=58, bottom=214))
        step_axis(above, steps, label=False)
        heading(above, "training loss")
        above.grid(axis="y", linewidth=0.8)
        finite_run, finite_other = (np.where(np.isfinite(v), v, np.nan) for v in (run, other))
        curve(above, finite_run, "run", linewidth=3.5, alpha=0.6)
        curve(above, finite_other, "twin", linewidth=1.6, linestyle=(0, (4, 3)))
        low, high = above.get_ylim()
        # Losses that are all but equal must not be blown up to fill the axis.
        middle, least = (low + high) / 2, 0.05 * max(abs(low), abs(high))
        if high - low < least:
            low, high = middle - least / 2, middle + least / 2
            above.set_ylim(low, high)
        ends = [(_last(finite_run), "run", "run"), (_last(finite_other), "twin", "twin")]
        label_ends(above, ends, gap=0.13 * (high - low))
        below = figure.add_axes(frame(380, right=58, top=218))
        scale.apply(below, most_ticks=4)
        step_axis(below, steps)
        heading(below, "difference of the two losses, log scale")
        curve(below, scale.position(apart), "twin")
        finite = apart[np.isfinite(apart)]
        text = f"Over {plural(steps, 'step')} the losses differ by at most " + (
            f"{number(float(finite.max()))}." if finite.size else "an amount that is not finite."
        )
        return inline_svg(figure, key, "Training loss of the run and of its twin", text)


def _draw_control(axes: Axes, steps: int, scale: Decades) -> None:
    ends = [0, max(steps - 1, 1)]
    axes.plot(ends, [scale.floor] * 2, color=colour("control"), linewidth=2.2)
    note(
        axes,
        ends[1],
        scale.floor,
        "control: exactly 0",
        "control",
        up=4,
        anchor="right",
        vertical="bottom",
        bold=True,
    )


def _draw_growth(axes: Axes, growth: Growth, shown: Floats) -> None:
    """The fitted line and the interval of its slope, through the centre of the points fitted.

    The record holds the slope alone; a least-squares line passes through the mean of its points.
    """
    steps = np.arange(growth.first_step, min(growth.last_step + 1, len(shown)))
    steps = steps[np.isfinite(shown[steps])]
    if steps.size < 2:
        return
    x, y = float(steps.mean()), float(shown[steps].mean())
    away = np.array([steps[0], steps[-1]], dtype=np.float64) - x
    line, low, high = (
        y + rate / np.log(10.0) * away for rate in (growth.rate, growth.low, growth.high)
    )
    if not np.isfinite([*line, *low, *high]).all():
        return
    axes.fill_between(
        x + away, low, high, color=colour("fit"), alpha=0.22, linewidth=0, interpolate=True
    )
    axes.plot(x + away, line, color=colour("fit"), linewidth=1.8, linestyle=(0, (5, 2)), zorder=3)
    text = growth_phrase(growth).replace(" (", "\n(")
    # A growing curve leaves the room below it free, a shrinking one the room above.
    rising = growth.rate >= 0
    note(
        axes,
        x,
        y,
        text,
        "fit",
        right=14,
        up=-8 if rising else 8,
        vertical="top" if rising else "bottom",
    )


def _mark_step(axes: Axes, step: int | None, text: str) -> None:
    if step is None:
        return
    axes.axvline(step, color=colour("ink"), linewidth=1.2, linestyle=(0, (2, 2)))
    left, right = axes.get_xlim()
    late = step > 0.5 * (left + right)
    note(
        axes,
        step,
        axes.get_ylim()[1],
        f"{text} at step {step}",
        "ink",
        right=-5 if late else 5,
        up=-2,
        anchor="right" if late else "left",
        vertical="top",
    )


def _name_peak(axes: Axes, shown: Floats, text: str) -> None:
    if not np.isfinite(shown).any():
        return
    peak = int(np.nanargmax(shown))
    late = peak > 0.7 * len(shown)
    anchor = "right" if late else "left"
    y = float(shown[peak])
    note(axes, peak, y, text, text, up=5, anchor=anchor, vertical="bottom", bold=True)


def _last(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")
