"""What determinism costs, one dot a step: the spread is as much an answer as the middle."""

from __future__ import annotations

import numpy as np

from nondet_probe.records import CostArm, CostRecord
from nondet_probe.report.axes import Floats, colour, note
from nondet_probe.report.spell import listing, one_line, ratio
from nondet_probe.report.svg import WIDTH, blank, drawing, inline_svg

__all__ = ["cost_plot"]

_ROW, _TOP, _BOTTOM, _SIDE = 64.0, 26.0, 46.0, 16.0


def cost_plot(record: CostRecord, key: str) -> str | None:
    """Time of each step over that of the same step of the default arm, by arm."""
    default = next((arm for arm in record.arms if arm.name == "default"), None)
    if default is None:
        return None
    rows = [
        (f"{one_line(arm.name, 40)}: {ratio(arm.ratio)}", pairs)
        for arm in record.arms
        if arm is not default and (pairs := _pairs(arm, default)).size
    ]
    if not rows:
        return None
    height = _TOP + _ROW * len(rows) + _BOTTOM
    with drawing():
        figure = blank(height)
        axes = figure.add_axes(
            (
                _SIDE / WIDTH,
                _BOTTOM / height,
                1 - 2 * _SIDE / WIDTH,
                1 - (_BOTTOM + _TOP) / height,
            )
        )
        every = np.concatenate([pairs for _, pairs in rows])
        low, high = min(1.0, float(every.min())), max(1.0, float(every.max()))
        room = 0.06 * max(high - low, 0.05)
        axes.set_xlim(low - room, high + room)
        axes.set_ylim(len(rows), 0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("time of a step, relative to the same step by default")
        axes.axvline(1, color=colour("ink"), linewidth=1.2)
        note(axes, 1, 0, "default", "ink", up=4, anchor="center", vertical="bottom")
        rightwards = high - 1 >= 1 - low
        for row, (name, pairs) in enumerate(rows):
            y = row + 0.62
            axes.plot(*_swarm(pairs, y), "o", color=colour("run"), alpha=0.5, markersize=5, mew=0)
            lower, middle, upper = np.percentile(pairs, [25, 50, 75])
            axes.plot([lower, upper], [y, y], color=colour("twin"), linewidth=1.5)
            axes.plot([middle] * 2, [y - 0.2, y + 0.2], color=colour("twin"), linewidth=3)
            note(
                axes,
                1,
                row + 0.2,
                name,
                "ink",
                right=6 if rightwards else -6,
                anchor="left" if rightwards else "right",
                bold=True,
            )
        text = listing([name for name, _ in rows])
        return inline_svg(
            figure, key, "Time of a step relative to the default", f"Median time ratio: {text}."
        )


def _pairs(arm: CostArm, default: CostArm) -> Floats:
    """Time of each step over that of the default's same step; what is no figure is left out."""
    steps = min(len(arm.seconds), len(default.seconds))
    ours = np.asarray(arm.seconds[:steps], dtype=np.float64)
    theirs = np.asarray(default.seconds[:steps], dtype=np.float64)
    usable = np.isfinite(ours) & np.isfinite(theirs) & (theirs > 0)
    return ours[usable] / theirs[usable]


def _swarm(values: Floats, y: float) -> tuple[Floats, Floats]:
    """The dots of one row, moved up and down in turn so that equal ones stay apart."""
    lanes = np.array([0.0, 0.12, -0.12])
    return np.sort(values), y + lanes[np.arange(len(values)) % 3]
