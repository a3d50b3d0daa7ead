"""The distance of two runs on the fan of their twins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nondet_probe.records.noise_floor import NoiseFloor
from nondet_probe.report.axes import Decades, colour, frame, heading, label_ends, step_axis
from nondet_probe.report.spell import plural
from nondet_probe.report.svg import blank, drawing, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["fan_plot"]

_HEIGHT = 320


def fan_plot(floor: NoiseFloor, key: str) -> str | None:
    """Relative distances over the steps as one inline SVG, exact zeros at the bottom; None where
    no distance is finite. Twins and band lie where the bit would have been changed, if a step was
    found, and else where it was. key: an identifier of the figure within its page."""
    observed = np.asarray(floor.observed.relative, dtype=np.float64)
    if not np.isfinite(observed).any():
        return None
    twins = [np.asarray(twin.relative, dtype=np.float64) for twin in floor.twins]
    control = (
        [] if floor.control is None else [np.asarray(floor.control.relative, dtype=np.float64)]
    )
    scale = Decades.of(observed, *twins, *control)
    last = floor.observed.steps[-1]
    start = floor.placing.step if floor.placing.step is not None else floor.at
    with drawing():
        figure = blank(_HEIGHT)
        axes = figure.add_axes(frame(_HEIGHT, right=70))
        scale.apply(axes)
        step_axis(axes, last + 1)
        heading(axes, "distance of the parameters over their norm, log scale")
        ends = []
        if floor.twins and start is not None and floor.at is not None:
            ends += _draw_fan(axes, floor, scale, start - floor.at, last)
        for values in control:
            shown = scale.position(values)
            assert floor.control is not None, "its values are there"
            axes.plot(floor.control.steps, shown, color=colour("control"), linestyle=(0, (4, 2)))
            ends.append((_last(shown), "control", "control"))
        shown = scale.position(observed)
        axes.plot(
            floor.observed.steps,
            shown,
            color=colour("run"),
            linewidth=3,
            marker="o" if len(shown) < 40 else "",
            markersize=4,
            zorder=4,
        )
        ends.append((_last(shown), "the runs", "run"))
        low, high = axes.get_ylim()
        label_ends(axes, ends, gap=0.065 * (high - low), top=high)
        text = (
            f"The two runs over {plural(len(observed), 'step')}, and {plural(len(twins), 'twin')}."
        )
        return inline_svg(figure, key, "Distance of two runs among twins of one bit", text)


def _draw_fan(
    axes: Axes, floor: NoiseFloor, scale: Decades, shift: int, last: int
) -> list[tuple[float, str, str]]:
    """Band and single twins, moved by `shift` steps, as far as the runs go."""
    assert floor.at is not None, "there are twins"
    ages = np.asarray(floor.band.ages) + floor.at + shift
    shown = ages <= last
    low, high = (
        # Wide bands of few twins must not squeeze the curves.
        np.clip(scale.position(np.asarray(side)), scale.floor, scale.high)[shown]
        for side in (floor.band.low, floor.band.high)
    )
    axes.fill_between(ages[shown], low, high, color=colour("twin"), alpha=0.18, linewidth=0)
    for twin in floor.twins:
        steps = np.asarray(twin.steps) + shift
        values = scale.position(np.asarray(twin.relative))
        here = steps <= last
        axes.plot(
            steps[here], values[here], color=colour("twin"), linewidth=0.9, alpha=0.7, zorder=3
        )
    middle = scale.position(np.asarray(floor.band.middle))[shown]
    return [(_last(middle), "twins", "twin")]


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")
