"""Where in a step the cost of determinism lies, and whether filling new memory is part of it."""

from __future__ import annotations

from nondet_probe.records import CostArm, CostRecord, OpCost
from nondet_probe.report.spell import one_line, percent, plural, printable, seconds
from nondet_probe.report.tables import Table

__all__ = ["DEAREST", "dearest", "fill_phrase", "fill_share"]

DEAREST = 5
"""Ops that the table shows."""


def dearest(record: CostRecord) -> Table:
    """The ops that deterministic mode pays most for, then all others together, by arm."""
    arms = [arm.name for arm in record.arms if any(arm.name in op.seconds for op in record.ops)]
    rows = [
        [f"{printable(op.op)}\n{plural(op.calls, 'call')} a step", *_times(op.seconds, arms)]
        for op in record.ops[:DEAREST]
    ]
    rest = record.ops[DEAREST:]
    if rest:
        rows.append([f"the {plural(len(rest), 'other op')}", *_times(_sums(rest), arms)])
    if rows:
        rows.append(["all ops", *_times(_sums(record.ops), arms)])
    columns = ["Op", *(one_line(name, 40) for name in arms)]
    title = "Time in ops, those first that deterministic mode costs most"
    return Table(title, columns, rows, frozenset({0}))


def _sums(ops: list[OpCost]) -> dict[str, float]:
    total: dict[str, float] = {}
    for op in ops:
        for name, value in op.seconds.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _times(found: dict[str, float], arms: list[str]) -> list[str]:
    return [seconds(found[name]) if name in found else "none" for name in arms]


def _arm(record: CostRecord, name: str) -> CostArm | None:
    return next((arm for arm in record.arms if arm.name == name), None)


def fill_share(record: CostRecord) -> float | None:
    """Time of filling new memory as a share of a default step; None where it was not timed."""
    filled, without = _arm(record, "deterministic"), _arm(record, "deterministic, no fill")
    if filled is None or without is None or filled.ratio is None or without.ratio is None:
        return None
    return filled.ratio - without.ratio


def fill_phrase(record: CostRecord) -> str:
    """What filling new memory takes, and whether it is needed; "" where that was not asked."""
    if not record.fill_reason:
        return ""
    share = fill_share(record)
    took = (
        "no time that shows"
        if share is None or share <= 0
        else f"{percent(share)} of a default step"
    )
    takes = "" if share is None else f"Filling new memory takes {took}. "
    answer = {
        True: "It is needed",
        False: "It is not needed",
        None: "Whether it is needed is not known",
    }[record.fill_needed]
    return f"{takes}{answer}: {one_line(record.fill_reason, 300)}."
