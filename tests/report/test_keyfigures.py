import dataclasses

import pytest
import report_examples as examples

from nondet_probe.records import CostArm
from nondet_probe.report.keyfigures import key_figures


def figures(record):
    return {figure.label: (figure.value, figure.more) for figure in key_figures(record)}


def test_clean():
    assert figures(examples.CLEAN) == {
        "Nondeterministic places": ("0", "among 214 op calls, each executed 5 times"),
        "Control": ("bit-identical", "for 100 steps"),
        "One changed bit": (
            "1.30x a step",
            "doubles every 2.6 steps; 98.5% of elements differ at the end",
        ),
        "Deterministic mode": ("1.12x", "the time of a whole training step"),
    }


def test_nondeterministic_shows_the_bit_only_under_the_fix():
    found = figures(examples.NONDETERMINISTIC)
    assert found["Fix of the worst place"] == (
        "deterministic mode",
        "verified, at 2.84x the op's time",
    )
    assert found["Control"] == ("differs at step 0", "first in table.weight")
    assert "One changed bit" not in found
    assert found["One changed bit, under deterministic mode"][0] == "1.30x a step"
    assert "2 not covered" in found["Nondeterministic places"][1]


@pytest.mark.parametrize(
    ("case", "label", "value"),
    [
        ("control_only", "One changed bit", "no growth rate"),
        ("absorbed", "One changed bit", "absorbed"),
        ("built_differently", "Control", "differs as built"),
        ("strange", "Fix of the worst place", "none found"),
        ("strange", "Deterministic mode", "cannot run"),
    ],
)
def test_other_cases(case, label, value):
    assert figures(examples.CASES[case])[label][0] == value


def test_nothing_gives_nothing():
    assert key_figures(examples.NOTHING) == []


def test_growth_that_cannot_be_told_from_none():
    growth = dataclasses.replace(examples.twin().growth, low=-0.1)
    record = examples.run(twin=examples.twin(growth=growth))
    assert figures(record)["One changed bit"][0] == "no clear growth"


def test_an_arm_without_a_ratio():
    record = examples.run(cost=examples.cost(arms=[CostArm("deterministic", [])]))
    assert figures(record)["Deterministic mode"][0] == "not measured"


def test_a_ratio_within_noise_says_so():
    arm = CostArm("deterministic", [1.0], 0.97, (0.9, 1.1))
    found = figures(examples.run(cost=examples.cost(arms=[arm])))["Deterministic mode"]
    assert found == (
        "0.97x",
        "the time of a whole training step, within the noise of this machine",
    )
