"""A matplotlib figure as inline SVG: the page's colours, one text size, the same bytes each time.

matplotlib is imported when a figure is made. pyplot is never imported, and the settings of
matplotlib are put back after each figure.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "WIDTH", "blank", "drawing", "inline_svg", "variables"]

# Units of the viewBox; the text is 12 of them high, which a phone shows at 10 to 11 pixels.
WIDTH = 400

# name -> (on light paper, on dark paper). Told apart by any kind of colour vision, by lightness as
# well as hue, and each with a contrast of at least 4.5 to 1, since curves are labelled in colour.
COLOURS = {
    "ink": ("#1a2027", "#e8ecf1"),
    "muted": ("#56606c", "#a3aebb"),
    "rule": ("#d5dae0", "#3a434e"),
    "paper": ("#ffffff", "#14181d"),
    "panel": ("#f5f7f9", "#1d232a"),
    "run": ("#00558c", "#7cc4f5"),
    "twin": ("#b3450a", "#f5a25d"),
    "control": ("#5b6470", "#b4bdc8"),
    "fit": ("#00714f", "#54d1a6"),
    "good": ("#00683f", "#5fd39b"),
    "bad": ("#a8201a", "#ff9a8f"),
    "unsure": ("#7a5200", "#e9bf5c"),
}

_NAME_OF = {light: name for name, (light, _) in COLOURS.items()}

# matplotlib escapes "<" and ">" in texts and attributes, so that a tag is what it looks like.
_TAG = re.compile(r"<[^>]+>")
_ID = re.compile(r' id="([^"]+)"')
_REFERENCE = re.compile(r'(?:href="|url\()#([^")]+)')
_PAINT = re.compile(rf"((?:fill|stroke): )({'|'.join(_NAME_OF)})")


def variables(dark: bool) -> str:
    """The palette as CSS custom properties."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib's own defaults with the page's look for the body, whatever the user has set."""
    import matplotlib.style

    ink, muted, rule = (COLOURS[name][0] for name in ("ink", "muted", "rule"))
    look = {
        "axes.edgecolor": muted,
        "axes.facecolor": "none",
        "axes.formatter.useoffset": False,
        "axes.labelcolor": ink,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.unicode_minus": True,
        "figure.dpi": 72,
        "figure.facecolor": "none",
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "grid.color": rule,
        "lines.linewidth": 2,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "text.color": ink,
        "text.parse_math": False,
        "xtick.color": muted,
        "xtick.labelsize": 12,
        "ytick.color": muted,
        "ytick.labelsize": 12,
    }
    with matplotlib.style.context(["default", look]), warnings.catch_warnings():
        # Text stays text: the reader's browser has the glyphs that matplotlib's font has not.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def blank(height: float) -> Figure:
    """An empty figure, WIDTH wide and `height` high in units of the viewBox."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / 72, height / 72))


def inline_svg(figure: Figure, key: str, title: str, description: str) -> str:
    """`figure` as an `<svg>` element with a text alternative.

    key: an identifier of this figure within its page; it makes the ids of two figures distinct.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    # Inside of HTML the prologue, the fixed size and a style sheet for everything are out of place.
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    body = text[text.index(">") + 1 : text.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    used = set(_REFERENCE.findall(body))
    body = _TAG.sub(lambda hit: _page_tag(hit[0], key, used), body)
    body = re.sub(r">\s+<", ">\n<", body)
    return (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{key}-title {key}-text">'
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-text">{escape(description)}</desc>{body.strip()}</svg>'
    )


def _page_tag(tag: str, key: str, used: set[str]) -> str:
    """One tag of a figure as one of the page's: ids of its own, the colours by name, no line ends.

    Ids that nothing refers to are dropped: `figure_1` is in every figure.
    """
    tag = tag.replace("xlink:href=", "href=")
    tag = _ID.sub(lambda hit: f' id="{key}-{hit[1]}"' if hit[1] in used else "", tag)
    tag = _REFERENCE.sub(lambda hit: hit[0].replace("#", f"#{key}-"), tag)
    tag = _PAINT.sub(lambda hit: f"{hit[1]}var(--{_NAME_OF[hit[2]]}, {hit[2]})", tag)
    return re.sub(r"\s*\n\s*", " ", tag)
