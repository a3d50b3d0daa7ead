"""A price list in words and tables, for the page and the terminal alike.

Speeds are given as times torch's: 2x is twice as fast as torch's default, 0.5x takes twice as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nondet_probe.records import prices
from nondet_probe.records.figures import Row, Spread
from nondet_probe.report import spell
from nondet_probe.report.spell import count, listing, one_line, plural, ratio
from nondet_probe.report.tables import Table

__all__ = ["GUARANTEES", "Group", "grouped", "overview", "price_verdict", "size_name"]

GUARANTEES = {
    "none": "none",
    "run_to_run": "run to run",
    "launch_invariant": "any launch",
    "order_invariant": "any order",
    "correctly_rounded": "correctly rounded",
}
"""Weakest first, with the headings they have here."""


@dataclass(frozen=True)
class Group:
    """What was measured beside each other: an op at one dtype, size and thread count.

    figures: by provider, then metric, both in the order in which they were measured.
    """

    op: str
    dtype: str
    n: int
    threads: int
    figures: dict[str, dict[str, Row]]

    def spread(self, provider: str, metric: str) -> Spread | None:
        row = self.figures.get(provider, {}).get(metric)
        return row.spread if row is not None else None

    def guarantee(self, provider: str) -> str:
        return next(iter(self.figures[provider].values())).guarantee

    def providers(self) -> list[str]:
        """All that compute the op: the read stream is none of them."""
        return [name for name in self.figures if name != prices.STREAM]


def grouped(rows: Iterable[Row]) -> list[Group]:
    """The groups in the order of their first rows."""
    found: dict[tuple[str, str, int, int], Group] = {}
    for row in rows:
        key = (row.op, row.dtype, row.n, row.threads)
        group = found.setdefault(key, Group(*key, {}))
        group.figures.setdefault(row.provider, {})[row.metric] = row
    return list(found.values())


def price_verdict(rows: Sequence[Row], interrupted: bool = False) -> str:
    """One sentence: what was measured, and whether every variant kept its promise."""
    # A case beside an op's first one has its label after the name: "sum dim=0".
    ops = {row.op.partition(" ")[0] for row in rows}
    broken = prices.broken_promises(rows)
    what = f"Price list of {plural(len(ops), 'op')}"
    if interrupted:
        what += ", interrupted before its end"
    if not broken:
        return f"{what}: every variant kept its promise."
    return f"{what}: {listing([_broken(row) for row in broken[:3]])}" + (
        f", and {plural(len(broken) - 3, 'other broken promise')}." if len(broken) > 3 else "."
    )


def _broken(row: Row) -> str:
    where = f"{row.op} {row.provider} ({row.dtype}, n = {count(row.n)})"
    if row.spread is None:
        return f"{where} {one_line(row.note, 120)}"
    over = "repeats" if row.metric == prices.DISTINCT else "thread counts"
    return (
        f"{where} gave {count(int(row.spread.median))} different results over "
        f"{count(row.spread.rounds)} {over} though it promises {row.guarantee}"
    )


def overview(groups: Sequence[Group]) -> Table:
    """The fastest variant for each guarantee, of each op at the largest size and thread count."""
    largest: dict[tuple[str, str], Group] = {}
    for group in groups:
        kept = largest.setdefault((group.op, group.dtype), group)
        if (group.n, group.threads) > (kept.n, kept.threads):
            largest[group.op, group.dtype] = group
    threads = {group.threads for group in largest.values()}
    title = "Speed as times PyTorch's default, by what is promised"
    if len(threads) == 1:
        title += f" ({spell.threads(threads.pop())})"
    rows = [
        [
            f"{one_line(group.op)}\n{group.dtype}, n = {size_name(group.n)}",
            _speed(group, prices.TORCH_DETERMINISTIC),
            *(_fastest(group, guarantee) for guarantee in list(GUARANTEES)[1:]),
        ]
        for group in largest.values()
    ]
    heads = ["Op", "PyTorch det. mode", *(GUARANTEES[name] for name in list(GUARANTEES)[1:])]
    return Table(title, heads, rows)


def _fastest(group: Group, guarantee: str) -> str:
    order = list(GUARANTEES)
    able: list[tuple[float, str]] = []
    for name in group.providers():
        promised = group.guarantee(name)
        spread = group.spread(name, prices.TIME)
        if promised and spread and order.index(promised) >= order.index(guarantee):
            able.append((spread.median, name))
    if not able:
        return "none"
    _, name = min(able)
    return f"{_speed(group, name)}\n{name}"


def _speed(group: Group, provider: str) -> str:
    spread = group.spread(provider, prices.TO_TORCH)
    if spread is not None:
        return ratio(spread.median)
    time = group.figures.get(provider, {}).get(prices.TIME)
    if time is not None and time.spread is None:
        return "raises" if time.note.startswith("raises") else "not measured"
    return "torch cannot"


def size_name(n: int) -> str:
    """16000000 -> "16M", as the command line takes it; what is no whole thousand as it is."""
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= scale and n % scale == 0:
            return f"{n // scale}{unit}"
    return count(n)
