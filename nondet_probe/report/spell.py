"""How figures and foreign text are written: one rule each, for the page and the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "clip",
    "count",
    "dotted",
    "listing",
    "number",
    "one_line",
    "percent",
    "place",
    "plural",
    "power_of_ten",
    "printable",
    "ratio",
    "seconds",
    "short_op",
    "threads",
    "ulps",
]

# Narrow no-break space: separates thousands without looking like a word break or wrapping.
_THIN = "\u202f"
# `nondet_probe.bits.ULP_MAX`: a NaN on one side, or more than int64 holds.
_BEYOND = 2**63 - 1
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def printable(text: object) -> str:
    """`text` with every character that does not print written as its escape.

    Control characters, direction overrides and the lone surrogates of undecodable file names would
    otherwise garble a terminal, reorder a line of code or fail to encode. Tabs and newlines stay.
    """
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in str(text)
    )


def one_line(text: object, limit: int = 240) -> str:
    """`text` on one line, without a final full stop, clipped at its end to `limit` characters."""
    line = " ".join(printable(text).split()).rstrip(".")
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def clip(text: object, limit: int) -> str:
    """`text` on one line in at most `limit` characters; the middle goes, since both ends tell."""
    line = " ".join(printable(text).split())
    if len(line) <= limit:
        return line
    head = (limit - 1) // 2
    return f"{line[:head]}…{line[len(line) - (limit - 1 - head) :]}"


def dotted(name: object, limit: int) -> str:
    """A dotted name in at most `limit` characters: outer parts shrink to their first letter first.

    "model.layers.12.self_attn.q_proj.weight" -> "m.l.12.s.q_proj.weight"
    """
    line = " ".join(printable(name).split())
    parts = line.split(".")
    for i, part in enumerate(parts[:-1]):
        if len(".".join(parts)) <= limit:
            break
        if not part.isdecimal():
            parts[i] = part[:1]
    return clip(".".join(parts), limit)


def count(value: int) -> str:
    """12345 -> "12 345" with a narrow no-break space; four digits stay together."""
    value = int(value)
    return f"{value:,}".replace(",", _THIN) if abs(value) >= 10_000 else str(value)


def plural(value: int, noun: str, many: str | None = None) -> str:
    """ "1 step", "12 345 steps"; `many` where the plural is not `noun` with an s."""
    return f"{count(value)} {noun if value == 1 else many or noun + 's'}"


def threads(number: int) -> str:
    """ "2 threads"; 0 of them is how rows call a GPU."""
    return plural(number, "thread") if number else "one GPU"


def power_of_ten(exponent: int) -> str:
    """-6 -> "10⁻⁶"; 0 -> "1"."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS) if exponent else "1"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with `digits` significant digits, by power of ten outside of 0.001 to 10 million."""
    if value is None:
        return "none"
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if power < -3 or power >= 7:
        return f"{mantissa}\u00d7{power_of_ten(power)}"
    if power >= digits - 1:
        return count(round(value))
    return f"{value:.{digits - 1 - power}f}"


def ulps(value: int | None) -> str:
    """A distance in ulps, exact up to ten million; None is a dtype without ulps."""
    if value is None:
        return "not in ulps"
    if value >= _BEYOND:
        return "beyond counting"
    if value >= 10_000_000:
        return f"{number(value)} ulps"
    return plural(value, "ulp")


def ratio(value: float | None) -> str:
    """1.2345 -> "1.23x"."""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "infinite"
    return f"{value:.2f}x" if abs(value) < 10 else f"{number(value)}x"


def percent(share: float | None) -> str:
    """A share of 1 as a percentage; one that is neither 0 nor 1 is never rounded to either."""
    if share is None or not math.isfinite(share):
        return "unknown"
    if share == 0 or share == 1:
        return f"{share:.0%}"
    if share > 0.999:
        return "more than 99.9%"
    return f"{number(100 * share)}%"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it: "12.3 µs", "4.56 s", "2 min 5 s"."""
    if value is None or not math.isfinite(value):
        return "not measured"
    if value >= 120:
        whole = round(value)
        return f"{count(whole // 60)} min {whole % 60} s"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale or unit == "µs":
            return f"{number(value / scale)} {unit}"
    raise AssertionError("the last unit takes any value")


def listing(items: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def short_op(overload: str) -> str:
    """ "aten.index_put_.default" -> "index_put_": what a reader searches the documentation for."""
    return one_line(overload).removeprefix("aten.").removesuffix(".default")


def place(file: str | None, line: int | None, *, parts: int = 1) -> str:
    """ "train.py:88": the last `parts` components of the path and the line; says when unknown."""
    if not file:
        return "an unknown line"
    names = printable(file).replace("\\", "/").split("/")
    name = "/".join(names[-parts:]) if len(names) > parts else "/".join(names)
    return name if line is None else f"{name}:{line}"
