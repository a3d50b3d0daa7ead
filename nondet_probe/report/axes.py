"""Axes for what a probe measures: a log scale that also shows exact zeros, direct labels, steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nondet_probe.report.spell import power_of_ten
from nondet_probe.report.svg import COLOURS, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Decades", "colour", "curve", "frame", "heading", "label_ends", "note", "step_axis"]

Floats = npt.NDArray[np.float64]


def colour(name: str) -> str:
    """The colour on light paper; the page exchanges it for its own."""
    return COLOURS[name][0]


@dataclass(frozen=True)
class Decades:
    """A logarithmic axis with a place for exact zeros below its lowest decade.

    low, high: the decades shown, as exponents of 10; floor: the position of zero; empty: there is
    no positive value to show. Positions are log10 of the value.
    """

    low: int
    high: int
    floor: float
    empty: bool = False

    @classmethod
    def of(cls, *series: Floats) -> Decades:
        """The decades that hold every positive finite value of `series`."""
        logs = [
            np.log10(values[np.isfinite(values) & (values > 0)]) for values in series if len(values)
        ]
        found = np.concatenate([*logs, np.empty(0)])
        if not found.size:
            return cls(0, 1, 0.5, empty=True)
        low = int(np.floor(found.min()))
        high = max(int(np.ceil(found.max())), low + 1)
        return cls(low, high, low - max(0.5, 0.12 * (high - low)))

    def position(self, values: Floats) -> Floats:
        """log10, zeros at the floor, NaN for what is not finite (a gap in the curve)."""
        values = np.asarray(values, dtype=np.float64)
        shown = np.full(values.shape, np.nan)
        positive = np.isfinite(values) & (values > 0)
        shown[positive] = np.log10(values[positive])
        shown[values == 0] = self.floor
        return shown

    def apply(self, axes: Axes, most_ticks: int = 6) -> None:
        """Set limits, ticks and the grid of the y axis; mark the floor as off the scale."""
        if self.empty:
            axes.set_yticks([self.floor], ["0"])
            axes.set_ylim(0, 1)
            return
        span = self.high - self.low
        stride = max(1, -(-span // (most_ticks - 1)))
        ticks = list(range(self.high, self.low - 1, -stride))
        axes.set_yticks([self.floor, *ticks], ["0", *(power_of_ten(tick) for tick in ticks)])
        height = self.high - self.floor
        axes.set_ylim(self.floor - 0.06 * height, self.high + 0.14 * height)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        # Zero is not on a log scale: the gap in the axis says so.
        axes.spines["left"].set_bounds(self.low, self.high)
        axes.tick_params(axis="y", length=0)


def step_axis(axes: Axes, steps: int, *, label: bool = True) -> None:
    """The x axis: training steps from 0, ticks at whole steps."""
    from matplotlib.ticker import MaxNLocator

    last = max(steps - 1, 1)
    axes.set_xlim(-0.015 * last, 1.015 * last)
    if steps == 1:
        axes.set_xticks([0])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    if label:
        axes.set_xlabel("training step")


def curve(axes: Axes, values: Floats, name: str, **style: Any) -> None:
    """A curve over the steps; points where it is too short or too gappy to be a line."""
    style.setdefault("linewidth", 2.2)
    alone = np.isfinite(values)
    alone[1:] &= ~np.isfinite(values[:-1])
    alone[:-1] &= ~np.isfinite(values[1:])
    marks = np.flatnonzero(alone).tolist()
    axes.plot(
        np.arange(len(values)),
        values,
        color=colour(name),
        marker="o",
        markersize=5,
        markevery=marks,
        solid_capstyle="round",
        **style,
    )


def note(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    name: str,
    *,
    right: float = 0.0,
    up: float = 0.0,
    anchor: str = "left",
    vertical: str = "center",
    bold: bool = False,
) -> None:
    """`text` at data coordinates, moved `right` and `up` units.

    The halo that keeps it readable over a curve is the page's: one made here would turn text into
    outlines.
    """
    axes.annotate(
        text,
        (x, y),
        (right, up),
        textcoords="offset points",
        ha=anchor,
        va=vertical,
        color=colour(name),
        fontweight="bold" if bold else "normal",
        annotation_clip=False,
    )


def label_ends(
    axes: Axes, ends: list[tuple[float, str, str]], gap: float, top: float = np.inf
) -> None:
    """Names right of the last points of curves, kept `gap` data units apart and not above `top`.

    ends: (y of the point, text, colour name); a y that is not finite is left out.
    """
    shown = sorted(end for end in ends if np.isfinite(end[0]))
    places: list[float] = []
    for y, _, _ in shown:
        places.append(max(y, places[-1] + gap) if places else y)
    for i in reversed(range(len(places))):
        if places[i] <= top:
            break
        places[i] = top
        top -= gap
    right = axes.get_xlim()[1]
    for y, (_, text, name) in zip(places, shown, strict=True):
        note(axes, right, y, text, name, right=5, bold=True)


def frame(
    height: float, *, right: float = 14, bottom: float = 42, top: float = 30
) -> tuple[float, float, float, float]:
    """Where the axes lie in a figure `height` high, as matplotlib's (left, bottom, width, height).

    right, bottom, top: the margins, in units of the viewBox.
    """
    left = 46
    return (
        left / WIDTH,
        bottom / height,
        (WIDTH - left - right) / WIDTH,
        (height - bottom - top) / height,
    )


def heading(axes: Axes, text: str) -> None:
    """What the y axis shows, written level above it: no head needs turning."""
    axes.annotate(
        text,
        (0, 1),
        (4, 6),
        xycoords=("figure fraction", "axes fraction"),
        textcoords="offset points",
        ha="left",
        va="bottom",
        color=colour("ink"),
    )
