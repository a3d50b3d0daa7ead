"""Pictures of a price list: how fast each variant is beside torch's op, and over the sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nondet_probe.records import prices
from nondet_probe.records.figures import Spread
from nondet_probe.report import spell
from nondet_probe.report.axes import colour, frame, heading, label_ends, note
from nondet_probe.report.prices import Group, size_name
from nondet_probe.report.spell import listing, number, power_of_ten, ratio
from nondet_probe.report.svg import WIDTH, blank, drawing, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["rate_plot", "speed_plot", "threads_key"]

_ROW, _TOP, _BOTTOM, _SIDE = 46.0, 26.0, 46.0, 18.0
# Of the thread counts, in their order; and of the curves.
_THREADS = ("run", "twin", "fit", "unsure")
_CURVES = ("run", "twin", "fit", "bad", "unsure")
_DASHED, _DOTTED = (0, (4, 2)), (0, (1, 1.2))


def speed_plot(groups: Sequence[Group], key: str) -> str | None:
    """Speed of each provider relative to torch's default, a row each; groups: one a thread count,
    of one op, dtype and size."""
    found: dict[str, list[tuple[int, Spread]]] = {}
    for group in groups:
        for name in group.providers():
            spread = group.spread(name, prices.TO_TORCH)
            if spread is not None and spread.q25 > 0:
                found.setdefault(name, []).append((group.threads, spread))
    if not found:
        return None
    counts = sorted({threads for spreads in found.values() for threads, _ in spreads})
    height = _TOP + _ROW * len(found) + _BOTTOM
    with drawing():
        figure = blank(height)
        inner = (1 - 2 * _SIDE / WIDTH, 1 - (_BOTTOM + _TOP) / height)
        axes = figure.add_axes((_SIDE / WIDTH, _BOTTOM / height, *inner))
        every = [s for spreads in found.values() for _, s in spreads]
        _speed_axis(axes, min(s.q25 for s in every), max(s.q75 for s in every), len(found))
        for row, (name, spreads) in enumerate(found.items()):
            said = ", ".join(ratio(spread.median) for _, spread in spreads)
            left = axes.get_xlim()[0]
            note(axes, left, row + 0.25, f"{name}: {said}", "ink", anchor="left", bold=True)
            for threads, spread in spreads:
                lane = counts.index(threads)
                y = row + 0.62 + 0.16 * (lane - (len(counts) - 1) / 2)
                shade = colour(_THREADS[lane % len(_THREADS)])
                low, middle, high = (math.log2(v) for v in (spread.q25, spread.median, spread.q75))
                axes.plot([low, high], [y, y], color=shade, linewidth=2)
                axes.plot([middle], [y], "o", color=shade, markersize=6)
        text = listing(
            [
                f"{name} {ratio(spread.median)} with {spell.threads(threads)}"
                for name, spreads in found.items()
                for threads, spread in spreads
            ]
        )
        return inline_svg(figure, key, "Speed relative to PyTorch's default", f"{text}.")


def threads_key(groups: Sequence[Group]) -> str:
    """Which of `speed_plot`'s lines is which, in words; nothing where a row has one."""
    counts = sorted({group.threads for group in groups})
    if len(counts) < 2:
        return f"{spell.threads(counts[0])}."
    return f"From top to bottom in each row: {listing([spell.threads(n) for n in counts])}."


def _speed_axis(axes: Axes, low: float, high: float, rows: int) -> None:
    """Powers of two around 1."""
    first, last = math.floor(math.log2(min(low, 0.9))), math.ceil(math.log2(max(high, 1.1)))
    axes.set_xlim(first - 0.05 * (last - first), last + 0.05 * (last - first))
    stride = max(1, -(-(last - first) // 6))
    # Counted from 1x, which is always there.
    ticks = [tick for tick in range(first, last + 1) if tick % stride == 0]
    axes.set_xticks(ticks, [_power_of_two(tick) for tick in ticks])
    axes.set_ylim(rows, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("times as fast as PyTorch's default")
    axes.axvline(0, color=colour("ink"), linewidth=1.2)
    note(axes, 0, 0, "as fast", "ink", up=4, anchor="center", vertical="bottom")


def _power_of_two(exponent: int) -> str:
    return f"{2**exponent}x" if exponent >= 0 else f"1/{2**-exponent}"


def rate_plot(groups: Sequence[Group], key: str) -> str | None:
    """GB/s over n, a curve each provider and the read stream; groups: one a size, of one op, dtype
    and thread count. None where there is one size only."""
    sizes = sorted({group.n for group in groups})
    if len(sizes) < 2:
        return None
    curves: dict[str, list[tuple[float, float]]] = {}
    for group in sorted(groups, key=lambda group: group.n):
        for name in group.figures:
            spread = group.spread(name, prices.RATE)
            if spread is not None and spread.median > 0:
                point = (math.log10(group.n), math.log10(spread.median))
                curves.setdefault(name, []).append(point)
    if not curves:
        return None
    height = 320.0
    with drawing():
        figure = blank(height)
        axes = figure.add_axes(frame(height, right=140))
        _rate_axes(axes, sizes, [y for points in curves.values() for _, y in points])
        ends = []
        look = _looks(list(curves))
        for name, points in curves.items():
            shade, style = look[name]
            x, y = np.array(points).T
            axes.plot(x, y, marker="o", color=colour(shade), linestyle=style, markersize=4)
            ends.append((points[-1][1], name, shade))
        low, high = axes.get_ylim()
        label_ends(axes, ends, gap=0.062 * (high - low), top=high)
        last = {name: 10 ** points[-1][1] for name, points in curves.items()}
        text = listing([f"{name} {number(rate)} GB/s" for name, rate in last.items()])
        return inline_svg(figure, key, "Rate over the size", f"At the largest size: {text}.")


def _looks(names: list[str]) -> dict[str, tuple[str, Any]]:
    """Colour and line style of each curve; more variants than colours come round dotted."""
    looks: dict[str, tuple[str, Any]] = {
        prices.STREAM: ("muted", _DASHED),
        prices.TORCH: ("ink", "solid"),
        prices.TORCH_DETERMINISTIC: ("ink", _DOTTED),
    }
    variants = [name for name in names if name not in looks]
    for place, name in enumerate(variants):
        style = "solid" if place < len(_CURVES) else _DOTTED
        looks[name] = (_CURVES[place % len(_CURVES)], style)
    return looks


def _rate_axes(axes: Axes, sizes: Sequence[int], rates: Sequence[float]) -> None:
    exponents = [math.log10(size) for size in sizes]
    room = 0.04 * (exponents[-1] - exponents[0])
    axes.set_xlim(exponents[0] - room, exponents[-1] + room)
    axes.set_xticks(exponents, [size_name(size) for size in sizes])
    axes.set_xlabel("elements")
    low, high = math.floor(min(rates)), math.ceil(max(rates))
    axes.set_yticks(range(low, high + 1), [power_of_ten(tick) for tick in range(low, high + 1)])
    axes.set_ylim(low, high + 0.02)
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    heading(axes, "GB/s that the op has to move, log scale")
