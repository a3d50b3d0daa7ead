"""Where one changed bit spreads: a map of the distance of every parameter at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nondet_probe.records import TwinRecord
from nondet_probe.report.axes import Decades, Floats, colour, heading, step_axis
from nondet_probe.report.spell import dotted, number, plural, power_of_ten
from nondet_probe.report.svg import WIDTH, blank, drawing, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["heatmap_plot"]

# One hue whose opacity grows with the distance: it reads on light and on dark paper, and for any
# kind of colour vision. No difference is no colour.
_HUE = (0xD8, 0x5F, 0x12)
_FAINTEST = 0.16
_NOT_FINITE = (0x80, 0x88, 0x92)

_LEFT, _RIGHT, _TOP, _BELOW = 156.0, 12.0, 36.0, 96.0
_NAME_LENGTH = 22
_ROW, _MOST_ROWS, _MOST_COLUMNS = 17.0, 32, 800


def heatmap_plot(twin: TwinRecord, key: str) -> str | None:
    """Relative distance by parameter (rows, in the model's order) and step (columns)."""
    distance = np.asarray(twin.series.get("param_distance", ()), dtype=np.float64)
    if distance.ndim != 2 or not distance.size:
        return None
    steps, parameters = distance.shape
    rows = _ROW * min(max(parameters, 2), _MOST_ROWS)
    height = _TOP + rows + _BELOW
    scale = Decades.of(distance.ravel())
    with drawing():
        figure = blank(height)
        inner = WIDTH - _LEFT - _RIGHT
        axes = figure.add_axes((_LEFT / WIDTH, _BELOW / height, inner / WIDTH, rows / height))
        shown = distance[:: -(-steps // _MOST_COLUMNS)].T
        axes.imshow(
            _colours(shown, scale),
            aspect="auto",
            interpolation="none",
            extent=(-0.5, steps - 0.5, parameters - 0.5, -0.5),
        )
        step_axis(axes, steps)
        axes.set_xlim(-0.5, steps - 0.5)
        _name_rows(axes, twin, parameters)
        heading(axes, "relative distance of each parameter")
        _draw_key(figure, scale, height, inner)
        reached = int((np.nan_to_num(distance, nan=1.0) != 0).any(axis=0).sum())
        finite = distance[np.isfinite(distance)]
        text = (
            f"{plural(parameters, 'parameter')} over {plural(steps, 'step')}: the change reached "
            f"{reached} of them; the largest relative distance of one parameter is "
            f"{number(float(finite.max()) if finite.size else None)}."
        )
        return inline_svg(figure, key, "Relative distance by parameter and step", text)


def _colours(values: Floats, scale: Decades) -> npt.NDArray[np.uint8]:
    """RGBA of each cell."""
    cells = np.zeros((*values.shape, 4), dtype=np.uint8)
    positive = np.isfinite(values) & (values > 0)
    share = (np.log10(values, where=positive, out=np.zeros(values.shape)) - scale.low) / (
        scale.high - scale.low
    )
    cells[..., :3] = _HUE
    cells[..., 3] = np.where(positive, np.rint(255 * (_FAINTEST + (1 - _FAINTEST) * share)), 0)
    cells[~np.isfinite(values)] = (*_NOT_FINITE, 255)
    return cells


def _name_rows(axes: Axes, twin: TwinRecord, parameters: int) -> None:
    """Names of the parameters, as many as there is room for; always that of the changed one."""
    names = twin.parameters[:parameters]
    every = -(-parameters // _MOST_ROWS)
    name = twin.change.name if twin.change is not None else None
    changed = names.index(name) if name in names else None
    ticks = list(range(0, len(names), every))
    if changed is not None:
        ticks = sorted({changed, *(row for row in ticks if abs(row - changed) >= every)})
    axes.set_yticks(ticks, [dotted(names[row], _NAME_LENGTH) for row in ticks])
    axes.tick_params(axis="y", length=0)
    for row, label in zip(ticks, axes.get_yticklabels(), strict=True):
        if row == changed:
            label.set_color(colour("twin"))
            label.set_fontweight("bold")


def _draw_key(figure: Figure, scale: Decades, height: float, inner: float) -> None:
    """The colours, from no difference to the largest."""
    box = figure.add_axes((_LEFT / WIDTH, 24 / height, 14 / WIDTH, 10 / height))
    box.set_xticks([7], ["0"])
    box.set_xlim(0, 14)
    bar = figure.add_axes(((_LEFT + 40) / WIDTH, 24 / height, (inner - 60) / WIDTH, 10 / height))
    ramp = 10.0 ** np.linspace(scale.low, scale.high, 48)[None, :]
    bar.imshow(_colours(ramp, scale), aspect="auto", interpolation="none", extent=(0, 1, 0, 1))
    bar.set_xticks([0, 1], [power_of_ten(scale.low), power_of_ten(scale.high)])
    for axes in (box, bar):
        axes.set_yticks([])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_linewidth(0.8)
