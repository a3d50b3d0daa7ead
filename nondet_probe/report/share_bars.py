"""One bar a tensor: the share of its elements that differ. SVG by hand, in CSS pixels."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nondet_probe.records.state_difference import LeafDifference
from nondet_probe.report.spell import count, dotted, percent, plural
from nondet_probe.report.svg import COLOURS

__all__ = ["share_bars"]

_LEFT, _ROW, _BAR, _FULL, _RIGHT = 250.0, 22.0, 14.0, 480.0, 90.0
_MOST = 40
_LEAST = 2.0
"""No share that is not zero is drawn narrower."""


def share_bars(leaves: Sequence[LeafDifference], key: str) -> str | None:
    """The picture as an `<svg>` element, of the first tensors that differ in their bits; None where
    there is none. key: an identifier of this picture within its page."""
    tensors = [leaf for leaf in leaves if leaf.kind == "bits"]
    if not tensors:
        return None
    shown = tensors[:_MOST]
    width, height = _LEFT + _FULL + _RIGHT, len(shown) * _ROW + 6
    parts = []
    for row, leaf in enumerate(shown):
        share = leaf.different / leaf.elements
        y = row * _ROW + 4
        told = f"{dotted(leaf.name, 200)}: {count(leaf.different)} of {count(leaf.elements)}"
        parts.append(
            f"<g><title>{escape(told)}</title>"
            + _text(_LEFT - 8, y + 11, dotted(leaf.name, 34), "end")
            + _bar(y, _FULL, "rule", 0.6)
            + _bar(y, max(share * _FULL, _LEAST), "twin", 1.0)
            + _text(_LEFT + _FULL + 8, y + 11, percent(share), "start")
            + "</g>"
        )
    told = plural(len(tensors), "tensor") + (" differs" if len(tensors) == 1 else " differ")
    told += f"; shown are the first {_MOST}" if len(tensors) > _MOST else ""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="width: {width / 16:g}rem" role="img" '
        f'aria-labelledby="{key}-title {key}-text">'
        f'<title id="{key}-title">Share of elements that differ</title>'
        f'<desc id="{key}-text">{escape(told)}.</desc>\n' + "\n".join(parts) + "</svg>"
    )


def _bar(y: float, width: float, colour: str, opacity: float) -> str:
    return (
        f'<rect x="{_LEFT:g}" y="{y:g}" width="{width:.2f}" height="{_BAR:g}" rx="2" '
        f'style="fill: var(--{colour}, {COLOURS[colour][0]}); fill-opacity: {opacity:g}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" '
        f'style="font-size: 12px; fill: var(--muted, {COLOURS["muted"][0]})">{escape(text)}</text>'
    )
