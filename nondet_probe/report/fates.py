"""One changed bit, its fate, and what the model predicts otherwise because of it, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from nondet_probe.bits import BitChange
from nondet_probe.records import Fate, Predictions
from nondet_probe.records.fault import Fault
from nondet_probe.report.spell import (
    clip,
    count,
    number,
    one_line,
    percent,
    plural,
    printable,
    ulps,
)

__all__ = ["changed", "fate_told", "of_predictions", "tally"]


def changed(change: BitChange | None, fault: Fault | None, step: int = 0) -> str:
    """Which element, and in further lines which of its bits, and when. step: without a fault."""
    if change is None:
        return f"nothing yet\nasked for: {one_line(fault)}" if fault is not None else "nothing yet"
    told = f"{clip(change.name, 60)}, element {count(change.index)}\n"
    told += "by one ulp" if change.bit is None else f"bit {change.bit}"
    told += f" of its {printable(change.dtype)}: {printable(change.before)} to "
    told += printable(change.after)
    if fault is not None:
        told += f"\n{one_line(fault.site)}, at step {fault.step}, {one_line(fault.when)}"
    elif step:
        told += f"\nbefore step {step}"
    return told


def fate_told(fate: Fate) -> str:
    """The verdict, and in a second line what it rests on."""
    where = f" from step {fate.step} on" if fate.verdict == "saturated" else ""
    if fate.verdict in {"absorbed", "not finite"}:
        where = f" at step {fate.step}"
    return f"{one_line(fate.verdict)}{where}\n{one_line(fate.reason, 600)}"


def of_predictions(found: Predictions) -> str:
    """How the outputs at the end differ."""
    told = [f"relative distance of the outputs {number(found.distance)}"]
    if found.disagreement is not None:
        told.insert(0, f"{percent(found.disagreement)} predicted differently")
    if found.max_ulp is not None:
        told.append(f"at most {ulps(found.max_ulp)}")
    return f"of {plural(found.examples, 'example')}: {', '.join(told)}"


def tally(verdicts: Iterable[str]) -> str:
    """ "2 growing, 1 absorbed" of several twins, the most frequent first."""
    found = Counter(verdicts).most_common()
    return ", ".join(f"{count(times)} {one_line(verdict)}" for verdict, times in found)
