from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
from scipy import stats

from nondet_probe.probe.growth import MIN_STEPS, growth
from nondet_probe.records.schema import Growth


def found(distance: object, first: int = 0) -> Growth:
    fit, reason = growth(distance, first)  # type: ignore[arg-type]
    assert reason is None
    assert fit is not None
    return fit


def why(distance: object, first: int = 0) -> str:
    fit, reason = growth(distance, first)  # type: ignore[arg-type]
    assert fit is None
    assert reason is not None
    return reason


def test_an_exact_exponential() -> None:
    fit = found(1e-9 * 2.0 ** (np.arange(60) / 5))
    assert math.isclose(fit.doubling_steps, 5.0)
    assert math.isclose(fit.rate, math.log(2) / 5)
    assert math.isclose(fit.low, fit.rate)
    assert math.isclose(fit.high, fit.rate)
    assert (fit.first_step, fit.last_step) == (0, 59)
    assert math.isclose(fit.r2, 1.0)


def test_the_window_ends_where_the_plateau_begins() -> None:
    steps = np.arange(120)
    noise = np.random.default_rng(0).normal(0, 0.1, 120)
    fit = found(np.exp(-18 + 0.3 * np.minimum(steps, 50) + noise))
    assert 48 <= fit.last_step <= 52
    assert 0.29 < fit.rate < 0.31
    # The offence: fitted over everything, the rate is nowhere near.
    assert stats.linregress(steps, 0.3 * np.minimum(steps, 50)).slope < 0.15


def test_the_window_begins_where_it_is_told() -> None:
    steps = np.arange(60)
    curve = np.where(steps < 10, 1e-9, 1e-9 * np.exp(0.2 * (steps - 10)))
    fit = found(curve, first=10)
    assert math.isclose(fit.rate, 0.2)
    assert (fit.first_step, fit.last_step) == (10, 59)


def test_a_slower_exponential_afterwards_is_left_out() -> None:
    steps = np.arange(100)
    fit = found(np.exp(-18 + 0.3 * np.minimum(steps, 40) + 0.02 * np.maximum(steps - 40, 0)))
    assert math.isclose(fit.rate, 0.3)
    assert fit.last_step == 40


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_growth_by_a_power_is_no_exponential(power: float) -> None:
    noise = np.random.default_rng(1).normal(0, 0.02, 100)
    reason = why(1e-8 * np.arange(1, 101) ** power * np.exp(noise))
    assert f"power {power:.2g}" in reason


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (np.full(50, 1e-9), "did not change from step 0 on"),
        (np.exp(-0.1 * np.arange(50)), "did not grow: over steps 0 to 49"),
        (1e-9 * np.exp(np.random.default_rng(2).normal(0, 0.3, 80)), "no rate can be told"),
        (1e-9 * np.exp(0.2 * np.arange(MIN_STEPS - 1)), "16 steps can be fitted and 17 are needed"),
        (np.r_[np.exp(0.1 * np.arange(10)), np.zeros(30)], "10 steps can be fitted .* was 0"),
        (np.r_[np.exp(0.1 * np.arange(10)), np.full(30, np.nan)], "then the distance was nan"),
        ([], "0 steps can be fitted .* run more steps"),
    ],
)
def test_no_growth_has_a_reason(distance: object, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(why(distance))


def test_the_fewest_steps_that_do() -> None:
    assert math.isclose(found(1e-9 * np.exp(0.2 * np.arange(MIN_STEPS))).rate, 0.2)


def test_one_jump_is_no_growth_rate() -> None:
    jump = np.where(np.arange(60) < 30, 1e-8, 1e-4) * np.exp(0.001 * np.arange(60))
    assert "interval" in why(jump)


def test_steps_like_a_staircase() -> None:
    assert 2.4 < found(1e-9 * 4.0 ** (np.arange(100) // 5)).doubling_steps < 2.6


def curves(kind: str, count: int, rate: float) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    curves = []
    for _ in range(count):
        noise = random.normal(0, 0.2, 100)
        if kind == "walk":
            noise = np.cumsum(noise)
        elif kind == "correlated":
            for step in range(1, 100):
                noise[step] += 0.9 * noise[step - 1]
        curves.append(np.exp(-20 + rate * np.arange(100) + noise))
    return curves


@pytest.mark.parametrize(("kind", "least"), [("white", 0.95), ("correlated", 0.95), ("walk", 0.88)])
def test_the_interval_holds_the_rate(kind: str, least: float) -> None:
    fits = [found(curve) for curve in curves(kind, 100, rate=0.2)]
    held = np.mean([fit.low <= 0.2 <= fit.high for fit in fits])
    assert held >= least
    assert 0.19 < np.mean([fit.rate for fit in fits]) < 0.21


def test_the_textbook_interval_would_not_hold_it() -> None:
    held = 0
    for curve in curves("walk", 100, rate=0.2):
        line = stats.linregress(np.arange(100), np.log(curve))
        held += abs(line.slope - 0.2) <= stats.t.ppf(0.975, 98) * line.stderr
    assert held < 30


Point = tuple[Decimal, ...]


def logistic(at: Point) -> Point:
    return (4 * at[0] * (1 - at[0]),)


def henon(at: Point) -> Point:
    return (1 - Decimal("1.4") * at[0] * at[0] + at[1], Decimal("0.3") * at[0])


def pulled_apart(step: Callable[[Point], Point], start: Point, steps: int) -> list[float]:
    """Distances of two orbits that begin 1e-300 apart, in so many digits that none is lost: as long
    a growth as a float can tell of."""
    with decimal.localcontext(prec=330):
        one, other = start, (start[0] + Decimal("1e-300"), *start[1:])
        found = []
        for _ in range(steps):
            one, other = step(one), step(other)
            gap = sum((x - y) ** 2 for x, y in zip(one, other, strict=True))
            found.append(float(gap.sqrt()))
    return found


# ln 2 is exact (the map is conjugate to the doubling of an angle); 0.4192 is what Sprott gives for
# the Henon map at a=1.4, b=0.3 (Chaos and Time-Series Analysis, 2003).
@pytest.mark.parametrize(
    ("step", "start", "steps", "exponent"),
    [
        (logistic, ("0.3",), 900, math.log(2.0)),
        (logistic, ("0.77",), 1200, math.log(2.0)),
        (henon, ("0.1", "0.1"), 1500, 0.4192),
        (henon, ("-0.4", "0.2"), 1900, 0.4192),
    ],
)
def test_maps_of_known_exponent(
    step: Callable[[Point], Point], start: tuple[str, ...], steps: int, exponent: float
) -> None:
    fit = found(pulled_apart(step, tuple(map(Decimal, start)), steps))
    assert math.isclose(fit.rate, exponent, rel_tol=0.05)
    assert fit.low < exponent < fit.high
    # Also where the attractor's size was reached on the way, which takes ln(1e300) / exponent.
    assert fit.last_step <= 1.05 * 300 * math.log(10.0) / exponent


def test_meta_another_exponent_would_be_noticed() -> None:
    fit = found(pulled_apart(logistic, (Decimal("0.3"),), 900))
    assert not math.isclose(fit.rate, 1.06 * math.log(2.0), rel_tol=0.05)
