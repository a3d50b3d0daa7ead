"""The tables of a price list: all of it for the page, one line a variant for the terminal."""

from __future__ import annotations

from collections.abc import Callable

from nondet_probe.records import prices
from nondet_probe.records.figures import Row, Spread
from nondet_probe.report.prices import GUARANTEES, Group
from nondet_probe.report.spell import (
    count,
    number,
    one_line,
    percent,
    ratio,
    seconds,
    threads,
    ulps,
)
from nondet_probe.report.tables import Table

__all__ = ["price_table", "short_price_table", "variability_line"]

_SHORT = {prices.TORCH_DETERMINISTIC: "torch, det."}
_SMALL_MEMORY = 1 << 20
_VARIABILITY = ("V_s", "V_ermv", "V_c")


def _title(group: Group) -> str:
    setting = f"{group.dtype}, n = {count(group.n)}, {threads(group.threads)}"
    stream = group.spread(prices.STREAM, prices.RATE)
    read = f"; the machine reads {number(stream.median)} GB/s" if stream is not None else ""
    return f"{one_line(group.op)}: {setting}{read}"


def price_table(group: Group) -> Table:
    """Everything that was measured of one group, a provider a row."""
    columns = ["Variant", "Time", "Rate", "Against PyTorch", "Against its deterministic mode"]
    columns += ["Extra memory", "Different results", "Largest error", "Variability"]
    rows = [_price_row(group, provider) for provider in group.providers()]
    return Table(_title(group), columns, rows)


def _price_row(group: Group, provider: str) -> list[str]:
    figures = group.figures[provider]
    name = f"{one_line(provider)}\n{GUARANTEES.get(group.guarantee(provider), '')}".rstrip()
    time = figures.get(prices.TIME)
    if time is None or time.spread is None:
        kind, _, why = (time.note if time is not None else "not measured").partition(" ")
        note = f"raises\n{one_line(why, 120)}" if kind == "raises" else f"{kind} {why}".strip()
        return [name, note, *["none"] * 7]
    return [
        name,
        f"{seconds(time.spread.median)}\n{_between(time.spread)}",
        _rate(group, provider),
        _against(figures.get(prices.TO_TORCH)),
        _against(figures.get(prices.TO_TORCH_DETERMINISTIC)),
        _memory(figures.get(prices.MEMORY)),
        _distinct(group, provider),
        _error(figures.get(prices.ERROR)),
        _variability(group, provider),
    ]


def _between(spread: Spread) -> str:
    """ "28.1 to 32.4 ms": the unit once where it is the same."""
    low, high = seconds(spread.q25), seconds(spread.q75)
    unit = high.rpartition(" ")[2]
    return f"{low.removesuffix(f' {unit}')} to {high}"


def _rate(group: Group, provider: str) -> str:
    rate, share = (group.spread(provider, metric) for metric in (prices.RATE, prices.SHARE))
    text = "none" if rate is None else f"{number(rate.median)} GB/s"
    return text if share is None else f"{text}\n{_share(share.median)} of the stream"


def _share(share: float) -> str:
    return percent(share) if share < 1 else f"{100 * share:.0f}%"


def _against(row: Row | None) -> str:
    if row is None:
        return "reference"
    if row.spread is None:
        return "raises" if row.note.startswith("raises") else one_line(row.note, 60)
    return f"{ratio(row.spread.median)}\n{ratio(row.spread.q25)} to {ratio(row.spread.q75)}"


def _memory(row: Row | None) -> str:
    if row is None:
        return "none"
    said = f"\n{one_line(row.note, 80)}" if row.note else ""
    if row.spread is None:
        return one_line(row.note, 80) or "not measured"
    used = row.spread.median
    return ("under 1 MiB" if used < _SMALL_MEMORY else _megabytes(used)) + said


def _distinct(group: Group, provider: str) -> str:
    found = group.spread(provider, prices.DISTINCT)
    across = group.spread(provider, prices.ACROSS_THREADS)
    text = "none" if found is None else f"{count(int(found.median))} of {count(found.rounds)}"
    if across is not None:
        text += f"\n{count(int(across.median))} over {across.rounds} thread counts"
    return text


def _error(row: Row | None) -> str:
    if row is None or row.spread is None:
        return one_line(row.note, 60) if row is not None else "none"
    return ulps(int(row.spread.median))


def _variability(group: Group, provider: str) -> str:
    return "\n".join(_measures(group, provider)) or "0"


def _measures(group: Group, provider: str) -> list[str]:
    """Each measure of variability by name; none where all are 0."""
    found = {name: group.spread(provider, name) for name in _VARIABILITY}
    values = {name: spread.median for name, spread in found.items() if spread is not None}
    if not any(values.values()):
        return []
    return [f"{name} {number(value)}" for name, value in values.items()]


def short_price_table(group: Group) -> Table:
    """The figures alone, narrow enough for a terminal; `variability_line` goes below it."""
    columns = ["Variant", "Time", "GB/s", "Stream", "Torch", "Det.", "Mem.", "Diff.", "Ulps"]
    rows = [_short_row(group, provider) for provider in group.providers()]
    return Table(_title(group), columns, rows)


def _short_row(group: Group, provider: str) -> list[str]:
    figures = group.figures[provider]
    time = figures.get(prices.TIME)
    if time is None or time.spread is None:
        raised = time is not None and time.note.startswith("raises")
        return [_SHORT.get(provider, provider), "raises" if raised else "none", *["-"] * 7]

    def median(metric: str, spell: Callable[[float], str]) -> str:
        spread = group.spread(provider, metric)
        return "-" if spread is None else spell(spread.median)

    return [
        _SHORT.get(provider, provider),
        seconds(time.spread.median),
        median(prices.RATE, number),
        median(prices.SHARE, _share),
        median(prices.TO_TORCH, ratio),
        median(prices.TO_TORCH_DETERMINISTIC, ratio),
        median(prices.MEMORY, lambda used: "small" if used < _SMALL_MEMORY else _megabytes(used)),
        median(prices.DISTINCT, lambda found: count(int(found))),
        median(prices.ERROR, lambda found: ulps(int(found)).split()[0]),
    ]


def _megabytes(used: float) -> str:
    return f"{number(used / 1e6)} MB"


def variability_line(group: Group) -> str:
    """The measures of the providers whose repeats differed, or that none did."""
    told = [
        f"{provider}: {', '.join(found)}"
        for provider in group.providers()
        if (found := _measures(group, provider))
    ]
    return "; ".join(told) or "V_s, V_ermv, V_c: all 0"
