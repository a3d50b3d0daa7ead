import numpy as np
import pytest
import report_examples as examples

from nondet_probe.records import CostArm
from nondet_probe.report.costplot import _pairs, cost_plot


def plot(*arms):
    return cost_plot(examples.cost(arms=list(arms)), "k")


def test_every_arm_is_named_with_its_ratio():
    text = cost_plot(examples.cost(), "k")
    assert ">deterministic: 1.12x<" in text
    assert ">deterministic, no fill: 1.06x<" in text
    assert "Median time ratio: deterministic: 1.12x and deterministic, no fill: 1.06x." in text
    assert cost_plot(examples.cost(), "k") == text


def test_one_dot_a_step():
    def marks(*ratios):
        default = CostArm("default", [1.0] * len(ratios))
        return plot(default, CostArm("deterministic", list(ratios), 1.5)).count("<use")

    assert marks(1.5, 2.0, 1.6, 1.7, 1.8) - marks(1.5, 2.0) == 3


@pytest.mark.parametrize(
    "arms",
    [
        [],
        [CostArm("default", [1.0])],
        [CostArm("deterministic", [1.0])],
        [CostArm("default", [1.0]), CostArm("deterministic", [], error="no")],
        [CostArm("default", [0.0]), CostArm("deterministic", [1.0])],
        [CostArm("default", [np.nan]), CostArm("deterministic", [1.0])],
    ],
)
def test_nothing_to_compare_gives_no_picture(arms):
    assert plot(*arms) is None


def test_pairs_are_of_the_same_step_and_figures_only():
    default = CostArm("default", [1.0, 2.0, 0.0, np.inf, 4.0])
    arm = CostArm("deterministic", [2.0, 2.0, 1.0, 1.0])
    assert _pairs(arm, default).tolist() == [2.0, 1.0]


@pytest.mark.parametrize("times", [[1.0, 1.0], [0.2, 0.3], [50.0, 0.01]])
def test_any_ratio_is_drawn(times):
    assert plot(CostArm("default", [1.0, 1.0]), CostArm("deterministic", times, 1.0)) is not None
