"""What one changed bit did to every tensor of the state: a table, curves by kind, ulps by step.

Pictures are inline SVGs as those of `nondet_probe.report.plots`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nondet_probe.records import TwinRecord
from nondet_probe.report.axes import (
    Decades,
    Floats,
    colour,
    curve,
    frame,
    heading,
    label_ends,
    step_axis,
)
from nondet_probe.report.spell import clip, count, number, one_line, percent, ulps
from nondet_probe.report.svg import blank, drawing, inline_svg
from nondet_probe.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["kinds_plot", "tensors", "ulps_plot"]

# As `kind_distance` has them, with a colour each.
_KINDS = (
    ("parameter", "weights", "twin"),
    ("buffer", "buffers", "control"),
    ("optimizer", "optimizer", "fit"),
    ("gradient", "gradients", "run"),
)
_HUE = (0x00, 0x55, 0x8C)
_FAINTEST = 0.12
_MOST_COLUMNS = 800


def tensors(run: TwinRecord) -> Table | None:
    """Every tensor of the state as it was at the end; None where a record has none."""
    series = run.series
    names = ("share", "max_ulp", "median_ulp", "distance", "cosine")
    if not run.tensors or not all(f"tensor_{name}" in series for name in names):
        return None
    if not run.steps:
        return None
    rows = []
    for place, tensor in enumerate(run.tensors):
        share, largest, median, distance, cosine = (
            series[f"tensor_{name}"][-1, place] for name in names
        )
        if np.isnan(share):
            continue
        has_ulp = largest >= 0
        rows.append(
            [
                clip(tensor.name, 60),
                one_line(tensor.kind),
                f"{percent(float(share))} of {count(tensor.elements)}",
                ulps(int(largest) if has_ulp else None),
                ("equal" if median == 0 else f"up to {ulps(int(median))}") if has_ulp else "",
                number(float(distance)),
                number(1.0 - float(cosine), 2),
            ]
        )
    columns = ["Tensor", "Kind", "Elements that differ", "Largest", "Median"]
    columns += ["Relative distance", "1 \u2212 cosine"]
    return Table("Every tensor of the state, after the last step", columns, rows)


def kinds_plot(twin: TwinRecord, key: str) -> str | None:
    """The relative distance of the weights, the buffers, the optimizer's state, the gradients."""
    distance = np.asarray(twin.series.get("kind_distance", ()), dtype=np.float64)
    if distance.ndim != 2 or distance.shape[1] != len(_KINDS) or not len(distance):
        return None
    scale = Decades.of(distance.ravel())
    with drawing():
        figure = blank(290)
        axes = figure.add_axes(frame(290, right=78))
        scale.apply(axes)
        step_axis(axes, len(distance))
        heading(axes, "relative distance by kind of tensor, log scale")
        ends = []
        for column, (_, told, name) in enumerate(_KINDS):
            shown = scale.position(distance[:, column])
            if np.isfinite(shown).any():
                curve(axes, shown, name, linewidth=1.8)
                ends.append((float(shown[np.isfinite(shown)][-1]), told, name))
        label_ends(axes, ends, gap=0.075 * (scale.high - scale.floor))
        told_ends = [
            f"{told} {number(float(distance[-1, column]))}"
            for column, (_, told, _) in enumerate(_KINDS)
            if not np.isnan(distance[-1, column])
        ]
        text = f"At the end the relative distances are: {', '.join(told_ends) or 'none'}."
        return inline_svg(figure, key, "Relative distance by kind of tensor", text)


def ulps_plot(twin: TwinRecord, key: str) -> str | None:
    """How many ulps the parameters' elements are apart: shares by powers of two over the steps."""
    shares = _shares(twin)
    if shares is None:
        return None
    steps, buckets = shares.shape
    with drawing():
        figure = blank(290)
        axes = figure.add_axes(frame(290))
        axes.imshow(
            _shades(shares[:: -(-steps // _MOST_COLUMNS)].T),
            aspect="auto",
            interpolation="none",
            origin="lower",
            extent=(-0.5, steps - 0.5, -0.5, buckets - 0.5),
        )
        step_axis(axes, steps)
        axes.set_xlim(-0.5, steps - 0.5)
        _name_buckets(axes, buckets)
        heading(axes, "distance of the parameters' elements in ulps")
        text = (
            f"At the end {percent(float(shares[-1, 0]))} of the elements with an ulp are equal and "
            f"{percent(float(shares[-1, -1]))} beyond counting."
        )
        return inline_svg(figure, key, "Parameters' elements by their distance in ulps", text)


def _shares(twin: TwinRecord) -> Floats | None:
    """[steps, buckets] of all parameters' elements that have an ulp; None where there are none."""
    counts = np.asarray(twin.series.get("tensor_ulps", ()))
    if counts.ndim != 3 or counts.shape[1] != len(twin.tensors) or not len(counts):
        return None
    own = [tensor.kind == "parameter" for tensor in twin.tensors]
    found = counts[:, own].sum(axis=1, dtype=np.float64)
    total = found.sum(axis=1, keepdims=True)
    return found / total if total.all() else None


def _shades(shares: Floats) -> np.ndarray:
    """RGBA of each cell: no colour for none, then by powers of ten down to a millionth."""
    cells = np.zeros((*shares.shape, 4), dtype=np.uint8)
    cells[..., :3] = _HUE
    with np.errstate(divide="ignore"):
        depth = 1.0 + np.clip(np.log10(shares), -6.0, 0.0) / 6.0
    opacity = 255 * (_FAINTEST + (1 - _FAINTEST) * depth)
    cells[..., 3] = np.where(shares > 0.0, np.rint(opacity), 0)
    return cells


def _name_buckets(axes: Axes, buckets: int) -> None:
    """Bucket 0 is equality, bucket k begins at 2^(k-1), the last is beyond counting."""
    stride = 5 if buckets < 40 else 10
    # Neither beside 0 nor beside the top: their names would run into each other.
    powers = range(1 + stride, buckets - 3, stride)
    superscripts = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    names = [f"2{str(k - 1).translate(superscripts)}" for k in powers]
    axes.set_yticks([0, *powers, buckets - 1], ["0", *names, "∞"])
    axes.tick_params(axis="y", length=0)
    for k in powers:
        axes.axhline(k - 0.5, color=colour("rule"), linewidth=0.6)
