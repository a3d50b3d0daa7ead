"""What a level costs, in words: beforehand as it was measured, afterwards as it was here."""

from __future__ import annotations

from nondet_probe.records.trace import TraceCost

__all__ = ["expected_cost", "expected_sentence", "real_sentence"]

# benchmarks/README.md: times the plain step, with one thread, of a small transformer's training.
_MEASURED = {
    ("step", True): 1.03,
    ("module", True): 1.15,
    ("op", False): 1.3,
    ("op", True): 1.45,
}


def expected_cost(level: str, inputs: bool) -> float:
    """Times the plain step, for a level of `records.trace.LEVELS`."""
    return _MEASURED[level, inputs if level == "op" else True]


def expected_sentence(level: str, inputs: bool) -> str:
    return (
        f"recording at level {level}: steps are expected to take about "
        f"{expected_cost(level, inputs):.2f} times as long"
    )


def real_sentence(cost: TraceCost | None) -> str:
    """Of a recording that is over."""
    if cost is None or cost.steps == 0 or cost.seconds <= cost.probe_seconds:
        return "recorded no whole step, so there is no cost to tell"
    times = cost.seconds / (cost.seconds - cost.probe_seconds)
    each = cost.seconds / cost.steps
    return (
        f"recorded {cost.steps} step{'s' * (cost.steps != 1)} of {each:.3g} s, which took about "
        f"{times:.2f} times as long as without (expected {cost.expected:.2f})"
    )
