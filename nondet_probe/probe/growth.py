"""How fast does the distance between twins grow: one exponential rate, or why there is none.

The fit is a line through log(distance) against the step.

The window. It begins where the change has left the single weight (the caller says where). It ends
at the knee: the step at which the best continuous line of two pieces (least squares over all places
of the knee) bends, if the slope after it is less than half of that before it; otherwise at the end.
So a plateau or a slow drift after the exponential part is left out.

The interval. The residuals of such a curve are strongly autocorrelated: the log distance is a sum
of local growth rates, close to a random walk with drift, so the textbook interval of a regression
is far too narrow. Here the window is cut into `PARTS` equal parts which share their ends, a line is
fitted in each, and the standard error of the rate is the standard deviation of the parts' slopes
over sqrt(PARTS), with Student's t for PARTS - 1 degrees of freedom (batch means, applied to
slopes). That asks for no more than that the parts are nearly independent. Simulated, this 95 %
interval holds the true rate in 91 to 97 % of random walks with drift (the textbook one in 5 to
17 %) and practically always for independent or briefly correlated noise around a line, for which
it is several times wider than need be: `tests/probe/test_growth.py` repeats the simulation.

What it cannot do. The window is chosen from the same data, which favours steep windows a little; a
single jump (a ReLU or a max-pool that switches) is not exponential growth, makes the parts unequal
and gives an interval that includes zero; and growth by a power of the step, which every drift
shows, is no exponential growth at all: where a power law fits all steps at least as well as the two
pieces do, that is said instead of a rate.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nondet_probe.records.measured import Growth

__all__ = ["MIN_STEPS", "PARTS", "Bend", "bend", "growth", "trend"]

PARTS = 8
MIN_STEPS = 2 * PARTS + 1
"""Fewest steps in the window: three points, sharing ends, for each part."""
_MIN_AFTER = 8  # steps that must follow a knee for its slope to mean something
_MOST_KNEES = 200  # places tried, so that a long run costs no more than a short one

Values = npt.NDArray[np.float64]


def growth(
    distance: npt.ArrayLike, first: int = 0, since: int = 0
) -> tuple[Growth | None, str | None]:
    """Fit the growth of `distance`, float64 [steps], from step `first` on. since: the step of the
    change, from which a power law counts.

    Returns (Growth, None), or (None, the reason why there is no figure). Only the steps from
    `first` until the distance becomes 0 or is not finite are looked at.
    """
    values = np.asarray(distance, dtype=np.float64)[first:]
    usable = np.isfinite(values) & (values > 0.0)
    count = len(values) if usable.all() else int(np.argmin(usable))
    if count < MIN_STEPS:
        return None, _too_few(count, values)
    log = np.log(values[:count])
    if np.ptp(log) == 0.0:
        return None, f"the distance did not change from step {first} on"
    pieces = _two_pieces(log)
    power, power_misfit = _power_law(log, first - since)
    counted = f" from step {since} on" if since else ""
    if power > 0.0 and power_misfit <= pieces.misfit:
        return None, (
            f"the distance grew like the step{counted} to the power {power:.2g}, which fits steps "
            f"{first} to {first + count - 1} at least as well as exponential growth does"
        )
    window = log[: pieces.last + 1]
    line = _line(window)
    low, high = _interval(window, line.slope)
    last = first + pieces.last
    if low <= 0.0:
        told = "the distance did not grow" if high <= 0.0 else "no rate can be told from zero"
        factor = math.exp(min(line.slope * pieces.last, 700.0))
        return None, (
            f"{told}: over steps {first} to {last} the fitted line goes by a factor of "
            f"{factor:.3g}, {line.slope:.3g} a step in natural-log units with a 95 % interval of "
            f"{low:.3g} to {high:.3g}"
        )
    return (
        Growth(
            rate=line.slope,
            low=low,
            high=high,
            first_step=first,
            last_step=last,
            r2=line.r2,
            doubling_steps=math.log(2.0) / line.slope,
        ),
        None,
    )


def _too_few(count: int, values: Values) -> str:
    if count == len(values):
        why = "run more steps"
    elif values[count] == 0.0:
        why = "then the distance was 0"
    else:
        why = f"then the distance was {values[count]}"
    return f"{count} steps can be fitted and {MIN_STEPS} are needed: {why}"


@dataclass(frozen=True)
class _Line:
    slope: float
    r2: float


def _line(values: Values) -> _Line:
    # scipy.stats takes a second to import: only when a fit is asked for.
    from scipy import stats

    found = stats.linregress(np.arange(len(values)), values)
    return _Line(float(found.slope), float(found.rvalue) ** 2)


@dataclass(frozen=True)
class Bend:
    """The continuous line of two pieces that fits best. knee: the index at which it bends; before,
    after: its slopes; misfit: sum of squared residuals."""

    knee: int
    before: float
    after: float
    misfit: float


def bend(log: Values, earliest: int, latest: int) -> Bend:
    """The best fit to `log`, float64 [steps], with its knee at `earliest` to `latest`, of which at
    most some 200 are tried."""
    steps = np.arange(len(log), dtype=np.float64)
    best = Bend(latest, 0.0, 0.0, math.inf)
    for knee in np.unique(np.linspace(earliest, latest, _MOST_KNEES).astype(int)):
        design = np.column_stack([np.ones_like(steps), steps, np.maximum(steps - knee, 0.0)])
        found, *_ = np.linalg.lstsq(design, log, rcond=None)
        misfit = float(np.sum((log - design @ found) ** 2))
        if misfit < best.misfit:
            best = Bend(int(knee), float(found[1]), float(found[1] + found[2]), misfit)
    return best


@dataclass(frozen=True)
class _Pieces:
    """last: the last step of the window; misfit: sum of squared residuals over all steps."""

    last: int
    misfit: float


def _two_pieces(log: Values) -> _Pieces:
    # One piece when the series is too short for a knee: a knee at the end bends nothing.
    stop = len(log) - _MIN_AFTER
    found = bend(log, MIN_STEPS - 1, max(stop, MIN_STEPS - 1))
    slowed = found.knee <= stop and found.before > 0.0 and found.after < found.before / 2.0
    return _Pieces(found.knee if slowed else len(log) - 1, found.misfit)


def trend(log: Values) -> tuple[float, float, float]:
    """Slope of the line through `log`, MIN_STEPS values or more, and its 95 % interval."""
    slope = _line(log).slope
    return slope, *_interval(log, slope)


def _power_law(log: Values, first: int) -> tuple[float, float]:
    """Exponent and sum of squared residuals of distance ~ (steps since the change) ** exponent."""
    done = np.log(np.arange(first + 1, first + 1 + len(log), dtype=np.float64))
    design = np.column_stack([np.ones_like(done), done])
    found, *_ = np.linalg.lstsq(design, log, rcond=None)
    return float(found[1]), float(np.sum((log - design @ found) ** 2))


def _interval(window: Values, slope: float) -> tuple[float, float]:
    from scipy import stats

    ends = np.linspace(0, len(window) - 1, PARTS + 1).round().astype(int)
    slopes = [_line(window[a : b + 1]).slope for a, b in itertools.pairwise(ends)]
    error = float(np.std(slopes, ddof=1)) / math.sqrt(PARTS)
    half = float(stats.t.ppf(0.975, PARTS - 1)) * error
    return slope - half, slope + half
