"""Steps by phases, drawn: what was equal, where a difference began, how far it went.

One rectangle a phase of a step, filled by the shares of its records; resting on it tells the
figures. Written as SVG by hand, in units of CSS pixels: a picture of a few hundred rectangles that
can be pointed at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from nondet_probe.records.difference import StepCount
from nondet_probe.records.trace import PHASES, SETUP
from nondet_probe.report.spell import count, listing, one_line, plural
from nondet_probe.report.svg import COLOURS
from nondet_probe.report.trace_words import step_phrase

__all__ = ["strip"]

_LEFT, _TOP, _ROW, _GAP = 86.0, 34.0, 30.0, 2.0
_BELOW = 58.0
_WIDTH = 930.0
_WIDEST, _SETUP_WIDTH = 96.0, 48.0
_MOST_COLUMNS = 180
_LEAST = 4.0
"""A share that is not zero is never drawn thinner than this."""

# What a record can be, from the bottom of a rectangle up: (colour, opacity, words).
_STATES = {
    "propagated": ("twin", 0.85, "propagated"),
    "only": ("control", 0.7, "only in one run"),
    "roots": ("bad", 1.0, "where it began"),
}
_EQUAL = ("good", 0.28, "equal")


@dataclass
class _Cell:
    equal: int = 0
    roots: int = 0
    propagated: int = 0
    only: int = 0

    def add(self, found: StepCount) -> None:
        self.equal += found.equal
        self.roots += found.roots
        self.propagated += found.propagated
        self.only += found.only_a + found.only_b

    @property
    def total(self) -> int:
        return self.equal + self.roots + self.propagated + self.only

    def told(self) -> str:
        parts = [f"{count(self.equal)} equal"]
        parts += [
            f"{count(getattr(self, name))} {words}"
            for name, (_, _, words) in _STATES.items()
            if getattr(self, name)
        ]
        return f"{plural(self.total, 'record')}: {listing(parts)}"


@dataclass
class _Column:
    """Steps first to last (the same where no steps share a column), and their cells by phase."""

    first: int
    last: int
    cells: dict[str, _Cell]
    x: float = 0.0
    width: float = 0.0

    @property
    def name(self) -> str:
        if self.first == SETUP:
            return "setup"
        if self.first == self.last:
            return f"step {count(self.first)}"
        return f"steps {count(self.first)} to {count(self.last)}"


def strip(counts: Sequence[StepCount], key: str) -> str | None:
    """The picture as an `<svg>` element; None where nothing was counted.

    key: an identifier of this picture within its page.
    """
    counts = [found for found in counts if _total(found)]
    if not counts:
        return None
    columns = _columns(counts)
    phases = _phases(counts)
    width = _place(columns)
    height = len(phases) * _ROW
    parts: list[str] = []
    for row, phase in enumerate(phases):
        parts.append(_text(_LEFT - 10, _TOP + (row + 0.5) * _ROW + 4, one_line(phase, 12), "end"))
    for column in columns:
        parts += _drawn(column, phases, height)
    parts += _callout(counts, columns, phases, width)
    parts += _ticks(columns, _TOP + height)
    parts += _legend(counts, _TOP + height + 44)
    tall = _TOP + height + _BELOW
    title = "Records by step and phase"
    return (
        f'<svg viewBox="0 0 {width:g} {tall:g}" style="width: {width / 16:g}rem" role="img" '
        f'aria-labelledby="{key}-title {key}-text">'
        f'<title id="{key}-title">{title}</title>'
        f'<desc id="{key}-text">{escape(_description(counts))}</desc>\n'
        + "\n".join(parts)
        + "</svg>"
    )


def _total(found: StepCount) -> int:
    return found.equal + found.roots + found.propagated + found.only_a + found.only_b


def _phases(counts: Iterable[StepCount]) -> list[str]:
    """The phases that steps have, in their order; a single row where there is only the setup."""
    there = {found.phase for found in counts if found.step != SETUP}
    known = [phase for phase in PHASES if phase in there]
    return [*known, *sorted(there - set(known))] or ["setup"]


def _columns(counts: Sequence[StepCount]) -> list[_Column]:
    """The setup, then the steps, several to a column where there are too many of them."""
    steps = sorted({found.step for found in counts if found.step != SETUP})
    every = -(-len(steps) // _MOST_COLUMNS)
    columns = [
        _Column(group[0], group[-1], {})
        for group in (steps[i : i + every] for i in range(0, len(steps), max(every, 1)))
    ]
    if any(found.step == SETUP for found in counts):
        columns.insert(0, _Column(SETUP, SETUP, {}))
    of_step = {step: column for column in columns if column.first == SETUP for step in [SETUP]}
    shown = [column for column in columns if column.first != SETUP]
    of_step |= {step: shown[i // max(every, 1)] for i, step in enumerate(steps)}
    for found in counts:
        # Of the setup all phases are one: it is a column and no row.
        phase = "setup" if found.step == SETUP else found.phase
        of_step[found.step].cells.setdefault(phase, _Cell()).add(found)
    return columns


def _place(columns: list[_Column]) -> float:
    """Give the columns their places; returns the width of the picture."""
    setup = columns[0].first == SETUP
    steps = len(columns) - setup
    room = _WIDTH - _LEFT - (_SETUP_WIDTH if setup else 0.0)
    width = min(room / max(steps, 1), _WIDEST)
    x = _LEFT
    for column in columns:
        column.x, column.width = x, _SETUP_WIDTH if column.first == SETUP else width
        x += column.width
    return max(x + 12.0, 480.0)


def _drawn(column: _Column, phases: Sequence[str], height: float) -> list[str]:
    parts = []
    gap = _GAP if column.width > 8 else 0.5
    for phase, cell in column.cells.items():
        whole = column.first == SETUP
        y = _TOP if whole else _TOP + phases.index(phase) * _ROW
        tall = (height if whole else _ROW) - _GAP
        name = column.name if whole else f"{column.name}, {one_line(phase, 40)}"
        rectangles = _filled(cell, column.x, y, column.width - gap, tall)
        parts.append(
            f"<g><title>{escape(f'{name}: {cell.told()}')}</title>{''.join(rectangles)}</g>"
        )
    return parts


def _filled(cell: _Cell, x: float, y: float, width: float, tall: float) -> list[str]:
    """The rectangle of a cell: all equal, and on it the shares that are not, from the bottom up."""
    parts = [_rectangle(x, y, width, tall, *_EQUAL[:2])] if cell.equal else []
    there = [name for name in _STATES if getattr(cell, name)]
    bottom = y + tall
    for name in there:
        colour, opacity, _ = _STATES[name]
        part = min(max(tall * getattr(cell, name) / cell.total, _LEAST), bottom - y)
        if name == there[-1] and not cell.equal:
            part = bottom - y  # no gap at the top where the least thickness took from others
        parts.append(_rectangle(x, bottom - part, width, part, colour, opacity))
        bottom -= part
    return parts


def _rectangle(
    x: float, y: float, width: float, tall: float, colour: str, opacity: float = 1.0
) -> str:
    paint = f"var(--{colour}, {COLOURS[colour][0]})"
    shine = "" if opacity == 1 else f" fill-opacity: {opacity:g};"
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{tall:.2f}" '
        f'style="fill: {paint};{shine}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "muted") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'style="font-size: 12px; fill: var(--{colour}, {COLOURS[colour][0]})">'
        f"{escape(text)}</text>"
    )


def _callout(
    counts: Sequence[StepCount], columns: Sequence[_Column], phases: Sequence[str], width: float
) -> list[str]:
    """A pin on the first rectangle that holds a root or a record of one run only."""
    odd = [found for found in counts if found.roots or found.only_a or found.only_b]
    if not odd:
        return []
    setup = odd[0].step == SETUP
    column = next(column for column in columns if column.first <= odd[0].step <= column.last)
    row = 0 if setup else phases.index(odd[0].phase)
    x, y = column.x + column.width / 2 - 1, _TOP + row * _ROW + 8
    text = f"begins in {step_phrase(odd[0].step)}"
    text += "" if setup else f", {one_line(odd[0].phase, 40)}"
    anchor, shift = ("start", -6.0) if x < width / 2 else ("end", 6.0)
    paint = f"var(--bad, {COLOURS['bad'][0]})"
    paper = f"var(--paper, {COLOURS['paper'][0]})"
    return [
        f'<path d="M {x:.1f} 22 V {y:.1f}" style="stroke: {paint}; stroke-width: 2; fill: none"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" '
        f'style="fill: {paint}; stroke: {paper}; stroke-width: 1.5"/>',
        _text(x + shift, 15, text, anchor, "bad"),
    ]


def _ticks(columns: Sequence[_Column], y: float) -> list[str]:
    """Numbers of steps below as many columns as there is room for."""
    parts = []
    free = 0.0
    for column in columns:
        text = "setup" if column.first == SETUP else count(column.first)
        middle = column.x + column.width / 2 - 1
        half = 3.6 * len(text)
        if middle - half >= free:
            parts.append(_text(middle, y + 15, text, "middle"))
            free = middle + half + 14
    if columns[-1].first != SETUP:
        parts.append(_text(_LEFT - 10, y + 15, "step", "end"))
    return parts


def _legend(counts: Sequence[StepCount], y: float) -> list[str]:
    total = _Cell()
    for found in counts:
        total.add(found)
    order = ("roots", "propagated", "only")
    shown = [("equal", *_EQUAL), *((name, *_STATES[name]) for name in order)]
    parts, x = [], _LEFT
    for name, colour, opacity, words in shown:
        if records := getattr(total, name):
            text = f"{words}: {count(records)}"
            parts += [_rectangle(x, y - 10, 12, 12, colour, opacity), _text(x + 18, y, text)]
            x += 18 + 6.6 * len(text) + 20
    return parts


def _description(counts: Sequence[StepCount]) -> str:
    total = _Cell()
    for found in counts:
        total.add(found)
    steps = len({found.step for found in counts if found.step != SETUP})
    return f"{plural(steps, 'step')}, {total.told()}."
