"""Is the distance of two runs what one changed bit makes of a training, and changed at which step?

The fan. Twins of a run, each with another bit changed at the same step, give curves of the relative
distance; a curve is a function of the age, the steps since the change. At each age the twins that
have a distance above zero give the mean and the standard deviation of its logarithm, and with them
the interval in which a further curve of the same kind is expected with a probability of 95 %:
Student's t for one further draw (Hahn, "Factors for calculating two-sided prediction intervals for
samples from a normal distribution", JASA 64, 1969), mean +- t sd sqrt(1 + 1/n). It is widened by
what the sketches may be wrong. Where twins were absorbed its lower end is 0.

The rule. Two runs are indistinguishable from a bit changed at step s if their curve, where it is
above what a sketch resolves, lies inside the band at the ages t - s for `INSIDE` of its steps or
more, and at no step beyond twice its half width from the middle (in logarithms). Every s from 0 to
the first step at which the runs are apart is tried, as far as the twins are old enough for half of
the steps. The interval for s goes from the first to the last step that the rule admits: a test,
inverted. It is no bootstrap: resampling five twins gives the spread of their mean, and what is
asked for is where one further curve lies. The step named is that at which the runs begin to be
apart, if the rule admits it, since a changed weight shows at once; and else the one at which the
curve is nearest to the middle of the fan, in units of the band.

The factor. Where no s is admitted, the runs are compared with the twins at the same step: the
median over the steps of log distance minus the twins' mean. Its interval is that of the twins'
middle: the twins are drawn again with replacement, 1,000 times, with a fixed seed (percentiles:
Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

What it cannot do. The growth after a change at step s is taken to be that after the twins' step: in
a training whose growth changes with the step (learning rate schedules, the first steps) change the
twins near the step in question. Distances are not all there is: another cause may have the size of
one bit. With few twins the band is wide (for 5 of them 3 standard deviations), so a small excess is
not seen; and where all n twins were absorbed, a further one may still not be, once in n + 1 times.
How often the rule admits a true twin, and how often the interval holds the true step, is
simulated in `tests/probe/test_noise_floor.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nondet_probe.bits.sketch import BUCKETS
from nondet_probe.records.drift import DriftCurve
from nondet_probe.records.noise_floor import FanBand, Placing

__all__ = ["INSIDE", "MIN_TWINS", "band_of", "place", "resolution", "settled"]

MIN_TWINS = 2
"""Of one twin no spread can be told."""

INSIDE = 0.8
"""The share of steps that must lie inside the band."""

_FAR = 2.0  # half widths of the band
_LEVEL = 0.975  # of Student's t: both sides together leave 5 %
_DRAWS = 1000
# So that a long run costs no more than a short one.
_MOST_STEPS, _MOST_TRIED = 500, 2000
_SEED = 0

Values = npt.NDArray[np.float64]


def resolution(elements: int) -> float:
    """The relative distance at or below which a sketch of so many elements shows its own rounding.

    A bucket sums k = elements / 4096 values in float64; their rounding errors add up like a random
    walk, to about 2^-53 sqrt(k) of the norm. Twice that is taken. One ulp in one of 10 million
    float32 weights is 1,000 times larger.
    """
    return 2.0**-52 * math.sqrt(max(1.0, elements / BUCKETS))


@dataclass(frozen=True)
class _Fan:
    """Natural logarithms at each age: middle, and low and high of the band. NaN: too few twins to
    tell; -inf: zero."""

    middle: Values
    low: Values
    high: Values


def band_of(twins: Sequence[Sequence[float]] | Values, error: float) -> FanBand:
    """The band as it is drawn; arguments as of `place`."""
    fan = _fan(_logs(twins), _slack(error))
    return FanBand(
        list(range(len(fan.middle))), *(np.exp(v).tolist() for v in (fan.low, fan.middle, fan.high))
    )


def settled(curve: DriftCurve, resolution: float) -> Placing | None:
    """What can be said of two runs without a twin; None where they are apart by more than the
    relative distance `resolution`."""
    values = np.asarray(curve.relative, dtype=np.float64)
    if (np.isfinite(values) & (values > resolution)).any():
        return None
    if not np.isfinite(values).all():
        return Placing("not finite")
    return Placing("equal" if curve.first is None else "below")


def place(
    observed: Sequence[float] | Values,
    twins: Sequence[Sequence[float]] | Values,
    *,
    at: int,
    resolution: float,
    error: float,
) -> Placing:
    """Place the distance of two runs on the fan of twins.

    observed: float64 [steps], relative distance after each step from step 0 on, NaN where there is
    none; `settled` did not settle it. twins: float64 [twins, ages], MIN_TWINS or more, relative
    distances from the step `at` on, where their bits were changed; NaN where there is none.
    resolution: distances up to it are rounding. error: a distance may be wrong by this share.
    """
    seen = np.asarray(observed, dtype=np.float64)
    logs = _logs(twins)
    with np.errstate(invalid="ignore"):
        window = np.flatnonzero(np.isfinite(seen) & (seen > resolution))
    placing = Placing("unknown", (int(window[0]), int(window[-1])))
    window = window[_spread(len(window), _MOST_STEPS)]
    slack = _slack(error)
    fan = _fan(logs, slack)
    curve = np.log(seen[window])
    tried = _tried(window, fan)
    admitted = [step for step in tried if _inside(curve, window - step, fan)]
    _compare(placing, curve, window - at, fan, logs)
    placing.tried = tried[0] if tried else None
    if admitted:
        placing.outcome = "one bit"
        placing.first, placing.last = admitted[0], admitted[-1]
        placing.step = placing.last
        if placing.last < window[0]:
            placing.step = min(admitted, key=lambda step: _misfit(curve, window - step, fan))
        placing.open = admitted[0] == tried[0] > 0
    else:
        _judge(placing, slack, changed=at)
    return placing


def _logs(twins: Sequence[Sequence[float]] | Values) -> Values:
    values = np.asarray(twins, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Values = np.log(values)
    logs[~np.isfinite(values)] = np.nan
    return logs


def _slack(error: float) -> float:
    """The largest change of the logarithm of a ratio of two distances, each wrong by `error`."""
    return math.log((1.0 + error) / (1.0 - error))


def _fan(logs: Values, slack: float) -> _Fan:
    # scipy.stats takes a second to import: only when a fan is looked at.
    from scipy import stats

    living = np.isfinite(logs)
    count = living.sum(axis=0)
    zeros = np.isneginf(logs).any(axis=0)
    middle = _mean(logs)
    away = np.where(living, logs - np.where(count > 0, middle, 0.0), 0.0)
    several = np.maximum(count - 1, 1)
    spread = np.sqrt((away**2).sum(axis=0) / several)
    wide = stats.t.ppf(_LEVEL, several) * np.sqrt(1.0 + 1.0 / np.maximum(count, 1)) * spread + slack
    few = count < MIN_TWINS
    low = np.where(zeros, -np.inf, np.where(few, np.nan, middle - wide))
    high = np.where(few, np.nan, middle + wide)
    absorbed = zeros & (count == 0)
    middle, high = (np.where(absorbed, -np.inf, values) for values in (middle, high))
    return _Fan(np.where(few & ~absorbed, np.nan, middle), low, high)


def _mean(logs: Values) -> Values:
    """Of those that are finite, at each age; NaN where none is."""
    living = np.isfinite(logs)
    count = living.sum(axis=0)
    total = np.where(living, logs, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _at(values: Values, ages: npt.NDArray[np.intp]) -> Values:
    """At these ages; NaN where the twins have not been or are not so old."""
    known = (ages >= 0) & (ages < len(values))
    return np.where(known, values[np.clip(ages, 0, len(values) - 1)], np.nan)


def _spread(count: int, most: int) -> npt.NDArray[np.intp]:
    """At most so many of the places 0 to count - 1, evenly, with the first and the last."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.intp)


def _tried(window: npt.NDArray[np.intp], fan: _Fan) -> list[int]:
    """The steps of a change for which half of the window, at least, can be compared."""
    return [
        int(step)
        for step in _spread(int(window[0]) + 1, _MOST_TRIED)
        if 2 * np.count_nonzero(~np.isnan(_at(fan.high, window - step))) >= len(window)
    ]


def _inside(curve: Values, ages: npt.NDArray[np.intp], fan: _Fan) -> bool:
    """The rule, for a change so many steps before."""
    low, middle, high = (_at(side, ages) for side in (fan.low, fan.middle, fan.high))
    known = ~np.isnan(high)
    inside = ((curve >= low) & (curve <= high))[known]
    with np.errstate(invalid="ignore"):
        # Where all were absorbed nothing is near; where some were, nothing is too far below.
        above = np.where(np.isneginf(high), np.inf, (curve - middle) / (high - middle))
        below = np.where(np.isneginf(low), 0.0, (middle - curve) / (middle - low))
    far = np.maximum(above, below)[known] > _FAR
    return bool(np.mean(inside) >= INSIDE and not far.any())


def _misfit(curve: Values, ages: npt.NDArray[np.intp], fan: _Fan) -> float:
    """Mean squared distance from the middle, in units of half the band."""
    middle, high = _at(fan.middle, ages), _at(fan.high, ages)
    known = np.isfinite(high)
    return float(np.mean(((curve - middle)[known] / (high - middle)[known]) ** 2))


def _compare(
    placing: Placing, curve: Values, ages: npt.NDArray[np.intp], fan: _Fan, logs: Values
) -> None:
    """The factor, and how many steps lie outside the band, at these ages."""
    low, high = _at(fan.low, ages), _at(fan.high, ages)
    placing.compared = int(np.count_nonzero(~np.isnan(high)))
    placing.above = int(np.count_nonzero(curve > high))
    placing.below = int(np.count_nonzero(curve < low))
    usable = np.isfinite(_at(fan.middle, ages))
    if not usable.any():
        return
    away, chosen = curve[usable], logs[:, ages[usable]]
    once = np.ones((1, len(logs)))
    placing.factor = float(_factors(away, chosen, once)[0])
    random = np.random.default_rng(_SEED)
    times = random.multinomial(len(logs), np.full(len(logs), 1.0 / len(logs)), _DRAWS)
    ends = np.nanquantile(_factors(away, chosen, times), [1.0 - _LEVEL, _LEVEL])
    placing.factor_low, placing.factor_high = map(float, ends)


def _factors(curve: Values, logs: Values, times: npt.NDArray[Any]) -> Values:
    """The factor for each row of `times`, [draws, twins]: how often each twin is counted. A draw in
    which no twin has a distance at any of these steps tells nothing and is left out."""
    living = np.isfinite(logs)
    count = times @ living
    total = times @ np.where(living, logs, 0.0)
    away = np.where(count > 0, curve - total / np.maximum(count, 1), np.nan)
    away = away[~np.isnan(away).all(axis=1)]
    factors: Values = np.exp(np.nanmedian(away, axis=1))
    return factors


def _judge(placing: Placing, slack: float, changed: int) -> None:
    """Of a curve that no step of a change explains."""
    if placing.tried is None or placing.compared == 0:
        placing.reason = (
            f"the twins, changed at step {changed}, have a distance at too few of the steps at "
            "which the runs are apart; look at what became of them, or name another --at"
        )
    elif placing.factor_low is None or placing.factor_high is None:
        placing.outcome = "larger"  # every twin was absorbed before
    elif placing.factor_low > math.exp(slack):
        placing.outcome = "larger"
    elif placing.factor_high < math.exp(-slack):
        placing.outcome = "smaller"
    else:
        placing.outcome = "unlike"
