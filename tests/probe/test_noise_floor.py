"""Synthetic fans, where it is known what the observed curve is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from nondet_probe.probe.noise_floor import band_of, place, resolution, settled
from nondet_probe.records.drift import DriftCurve
from nondet_probe.records.noise_floor import Placing

Values = npt.NDArray[np.float64]
FINE = 1e-15
ERROR = 0.0725
STARTS = (0.4, 0.8, 1.0, 1.3, 2.1)


def exponential(length: int, start: float = 1e-9, rate: float = 0.15) -> Values:
    return start * np.exp(rate * np.arange(length))


def fan(length: int, rate: float = 0.15) -> Values:
    return np.array([exponential(length, 1e-9 * start, rate) for start in STARTS])


def off(found: float | None, known: float) -> float:
    """By which share; a figure of statistics, not of bits."""
    assert found is not None
    return abs(found / known - 1.0)


def begun(curve: Values, step: int) -> Values:
    return np.concatenate([np.zeros(step), curve])


def placed(observed: Values, twins: Values, at: int = 30) -> Placing:
    return place(observed, twins, at=at, resolution=FINE, error=ERROR)


def test_a_bit_at_the_step_of_the_twins() -> None:
    found = placed(begun(exponential(70, 1.1e-9), 30), fan(70))
    assert (found.outcome, found.step, found.last) == ("one bit", 30, 30)
    assert found.window == (30, 99)
    assert found.first is not None
    # The band is a factor of some 7 wide to each side, at a rate of 0.15 a step.
    assert 10 <= found.first <= 28
    assert (found.open, found.above, found.below, found.compared) == (False, 0, 0, 70)


def test_a_bit_at_another_step() -> None:
    found = placed(begun(exponential(50, 0.9e-9), 50), fan(70))
    assert (found.outcome, found.step, found.last) == ("one bit", 50, 50)


def test_backwards_from_a_size_to_the_step_that_explains_it() -> None:
    """It begins at step 60 with the size that a bit of step 30 has grown to by then."""
    observed = begun(exponential(70), 30)
    observed[:60] = 0.0
    found = placed(observed, fan(70))
    assert found.outcome == "one bit"
    assert found.step is not None
    assert abs(found.step - 30) <= 2
    assert found.first is not None
    assert found.last is not None
    assert found.first <= 30 <= found.last < 60


def test_what_the_twins_are_too_young_for_is_said() -> None:
    observed = begun(exponential(100, 1e-9 * math.exp(0.15 * 40)), 60)
    found = placed(observed, fan(100), at=60)
    assert found.open
    assert found.first == found.tried == 10, "half of the window of 100 steps is compared there"
    assert found.last is not None
    assert found.last >= 20


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
def test_larger_and_smaller_by_a_known_factor(factor: float) -> None:
    found = placed(exponential(70, 1e-9 * factor), fan(70), at=0)
    assert found.outcome == ("larger" if factor > 1.0 else "smaller")
    assert found.factor is not None
    middle = math.prod(STARTS) ** (1 / len(STARTS))
    assert off(found.factor, factor / middle) < 1e-9
    assert found.factor_low is not None
    assert found.factor_high is not None
    assert found.factor_low < found.factor < found.factor_high
    assert (found.step, found.first, found.tried) == (None, None, 0)
    assert (found.above, found.below) == ((70, 0) if factor > 1.0 else (0, 70))


def test_another_learning_rate_is_larger() -> None:
    """It differs by a thousandth of all the way that was gone, from the first step on."""
    found = placed(1e-5 * np.arange(1.0, 101.0), fan(100, rate=0.05), at=0)
    assert found.outcome == "larger"
    assert found.factor_low is not None
    assert found.factor_low > 100


def test_a_brief_excess_is_no_bit_either() -> None:
    """Nine of ten steps inside, and ten times as far as the twins at one."""
    observed = exponential(70)
    assert placed(observed, fan(70), at=0).outcome == "one bit"
    observed[:3] *= 1e4
    assert placed(observed, fan(70), at=0).outcome != "one bit"


def test_another_course() -> None:
    observed = exponential(70, 1e-9 * math.exp(0.15 * 35), rate=-0.15) * np.linspace(1, 1, 70)
    observed *= math.exp(0.15 * 35)
    found = placed(observed, fan(70), at=0)
    assert (found.outcome, found.above + found.below) == ("unlike", found.compared - 13)


def test_within_the_error_of_a_sketch_nothing_is_larger() -> None:
    """Twins that are all but alike: only the sketches' error is left."""
    twins = np.array([exponential(70), exponential(70) * 1.0001])
    assert placed(exponential(70) * 1.12, twins, at=0).outcome == "one bit"
    assert placed(exponential(70) * 1.6, twins, at=0).outcome == "larger"


def test_all_twins_absorbed() -> None:
    twins = np.zeros((5, 70))
    twins[:, :4] = 1e-9
    found = placed(exponential(70), twins, at=0)
    assert (found.outcome, found.above) == ("larger", 69)
    # Over the steps at which they had a distance.
    assert off(found.factor, math.exp(0.15 * 1.5)) < 1e-9
    late = begun(exponential(50), 20)
    nothing = placed(late, np.zeros((5, 70)), at=0)
    assert (nothing.outcome, nothing.factor) == ("larger", None)
    # Absorbed itself, as they were.
    alike = np.zeros(70)
    alike[:4] = 1.05e-9
    assert placed(alike, twins, at=0).outcome == "one bit"


def test_some_twins_absorbed_leave_no_lower_end() -> None:
    twins = fan(70)
    twins[0, 10:] = 0.0
    assert placed(exponential(70, 1e-13), twins, at=0).outcome != "one bit"
    observed = exponential(70)
    observed[10:] *= 1e-6
    assert placed(observed, fan(70), at=0).outcome == "smaller"
    assert placed(observed, twins, at=0).outcome == "one bit"


def test_a_twin_that_is_not_finite_counts_as_far_as_it_is() -> None:
    twins = fan(70)
    twins[0, 10:] = math.nan
    twins[1, 20:] = math.inf
    assert placed(exponential(70), twins, at=0).outcome == "one bit"
    twins[:4, 5:] = math.nan
    found = placed(begun(exponential(50), 20), twins, at=0)
    assert (found.outcome, found.tried) == ("unknown", None)
    assert "at too few of the steps at which the runs are apart" in str(found.reason)
    short = begun(exponential(8), 20)
    assert placed(short, twins, at=20).outcome == "one bit", "five of eight steps can be compared"
    # All that can be tried is far off, and at the twins' own step there is nothing to compare.
    assert placed(short * 1e9, fan(40), at=60).outcome == "unknown"


def test_without_twins() -> None:
    def curve(relative: list[float], first: int | None) -> Placing | None:
        return settled(DriftCurve("b", [*range(len(relative))], relative, relative, first), 1e-12)

    def outcome(relative: list[float], first: int | None) -> str | None:
        found = curve(relative, first)
        return None if found is None else found.outcome

    assert outcome([0.0, 0.0], None) == "equal"
    assert outcome([0.0, 1e-12], 1) == "below"
    assert outcome([0.0, 0.0], 1) == "below", "other bits whose distance underflows"
    assert outcome([0.0, math.nan], 1) == "not finite"
    assert outcome([math.inf, 0.0], 1) == "not finite"
    assert outcome([0.0, 1.1e-12, math.nan], 1) is None


def test_what_a_sketch_resolves() -> None:
    """Far below one ulp in one weight, however many there are."""
    for elements in (1, 10**4, 10**7, 10**9):
        one_ulp = 2.0**-24 / math.sqrt(elements)
        assert resolution(elements) < one_ulp / 5
    assert off(resolution(10**7), 1.1e-14) < 0.01


def test_the_band() -> None:
    twins = np.array([[1.0, 1.0, 0.0, math.nan], [math.e, 0.0, 0.0, 1.0]])
    band = band_of(twins, 0.0)
    assert band.ages == [0, 1, 2, 3]
    half = 12.7062 * math.sqrt(1.5) * math.sqrt(0.5)
    assert off(band.middle[0], math.exp(0.5)) < 1e-9
    assert off(band.high[0], math.exp(0.5 + half)) < 1e-4
    assert off(band.low[0], math.exp(0.5 - half)) < 1e-4
    assert band.low[1:3] == [0.0, 0.0]
    assert (band.middle[2], band.high[2]) == (0.0, 0.0)
    assert all(map(math.isnan, [band.high[1], band.low[3], band.middle[3], band.high[3]]))


def test_the_same_figures_every_time() -> None:
    observed = exponential(70, 1e-6)
    assert placed(observed, fan(70), at=0) == placed(observed, fan(70), at=0)


def test_a_long_run_is_placed_too() -> None:
    length = 50_000
    found = placed(begun(exponential(length, rate=2e-4), 20_000), fan(length, 2e-4), at=20_000)
    assert (found.outcome, found.step, found.compared) == ("one bit", 20_000, 500)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_how_often_the_rule_admits_a_true_twin(noise: float) -> None:
    """Of random walks with drift in the logarithm, 5 twins: nine in ten, and about as often the
    interval holds the step."""
    random = np.random.default_rng(3)

    def curve(length: int) -> Values:
        growth = 0.1 + noise * random.standard_normal(length)
        return np.exp(-18.0 + random.standard_normal() + np.cumsum(growth))

    trials, admitted, held = 60, 0, 0
    for _ in range(trials):
        found = placed(begun(curve(60), 20), np.array([curve(60) for _ in range(5)]), at=20)
        if found.outcome == "one bit":
            assert found.first is not None
            assert found.last is not None
            admitted += 1
            held += found.first <= 20 <= found.last
    assert admitted >= 0.85 * trials
    assert held >= 0.8 * trials
