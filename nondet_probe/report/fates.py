"""The fate of one changed bit, and what the model predicts otherwise because of it, in words."""

from __future__ import annotations

from nondet_probe.records import Fate, Predictions
from nondet_probe.report.spell import number, one_line, percent, plural, ulps

__all__ = ["fate_told", "of_predictions"]


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
