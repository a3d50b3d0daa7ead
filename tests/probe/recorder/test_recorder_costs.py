"""What a level costs, in words."""

from __future__ import annotations

import pytest

from nondet_probe.probe.recorder.costs import expected_cost, expected_sentence, real_sentence
from nondet_probe.records.trace import LEVELS, TraceCost


def test_finer_levels_cost_more() -> None:
    costs = [expected_cost(level, True) for level in LEVELS]
    assert costs == sorted(set(costs))
    assert expected_cost("module", True) < expected_cost("op", False) < expected_cost("op", True)
    assert expected_cost("step", False) == expected_cost("step", True)


def test_beforehand_and_afterwards() -> None:
    assert "level module: steps are expected to take about 1.15 times" in expected_sentence(
        "module", True
    )
    told = real_sentence(TraceCost(1.15, steps=4, seconds=8.0, probe_seconds=1.6))
    assert told == (
        "recorded 4 steps of 2 s, which took about 1.25 times as long as without (expected 1.15)"
    )
    assert "1 step of" in real_sentence(TraceCost(1.15, steps=1, seconds=8.0, probe_seconds=1.6))


@pytest.mark.parametrize("cost", [None, TraceCost(1.15), TraceCost(1.1, 1, 1.0, 1.0)])
def test_no_step_has_no_cost(cost: TraceCost | None) -> None:
    assert "no whole step" in real_sentence(cost)
