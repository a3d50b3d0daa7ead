"""What becomes of a change over a whole run: absorbed, dormant, growing or saturated.

Absorbed is exact: no bit of the state of training differs any more, to the end. The others are read
off the relative distance of the parameters, on a log scale. Saturated means that a continuous line
of two pieces (least squares over all places of its bend) rises by a factor of 10 or more, and goes
on at less than a tenth of that slope for 17 steps or more. Else it is growing if the line through
all of it rises, beyond what the interval of `growth` leaves open, or if it ends 1,000 times above
its beginning, in leaps that no line fits; and dormant if not.

The limit of it. A plateau of the distance need not be the end: an attractor may be left again, and
a drift that is slow beside the growth before it counts as saturated.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nondet_probe.probe.growth import MIN_STEPS, bend, trend
from nondet_probe.records.measured import Fate

__all__ = ["fate"]

_CLIMB = math.log(10.0)
_FLAT = 0.1
_LEAP = math.log(1000.0)  # more than rounding gathers up in a million steps
_EARLIEST = 2  # steps at least before the bend: growth may take no more

Values = npt.NDArray[np.float64]


def fate(distance: npt.ArrayLike, absorbed_step: int | None, spread_step: int | None) -> Fate:
    """The fate of a change whose control stayed with the run.

    distance: float64 [steps], the relative distance of the parameters after each step.
    absorbed_step: as `Lockstep` has it. spread_step: the first step after which more than one
    element differed, None for a change that never left its place.
    """
    values = np.asarray(distance, dtype=np.float64)
    if not len(values):
        return Fate("unknown", "no step was completed")
    if absorbed_step is not None:
        return Fate("absorbed", "no bit of the state differs any more", absorbed_step)
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        step = int(broken[0])
        return Fate("not finite", f"the relative distance became {values[step]}", step)
    if spread_step is None:
        return Fate("dormant", "no parameter's bit but the changed one came to differ")
    values = values[spread_step:]
    if not (values > 0.0).all():
        zero = spread_step + int(np.argmin(values > 0.0))
        return Fate(
            "dormant", f"at step {zero} no parameter was apart, but other state has differing bits"
        )
    if len(values) < MIN_STEPS:
        return Fate(
            "unknown",
            f"{len(values)} steps since it spread, and {MIN_STEPS} are needed: run more steps",
        )
    return _plateau(values, spread_step) or _trend(np.log(values), spread_step)


def _plateau(values: Values, first: int) -> Fate | None:
    if len(values) < _EARLIEST + MIN_STEPS:
        return None
    log = np.log(values)
    found = bend(log, _EARLIEST, len(log) - MIN_STEPS)
    if found.before * found.knee < _CLIMB or found.after >= _FLAT * found.before:
        return None
    level = float(np.median(values[found.knee :]))
    # Falling again is no plateau.
    if found.after * (len(log) - found.knee) < -_CLIMB:
        return None
    step = first + found.knee
    return Fate("saturated", f"the distance stayed near {level:.2g}", step, level)


def _trend(log: Values, first: int) -> Fate:
    slope, low, high = trend(log)
    told = (
        f"{slope:.3g} a step in natural-log units from step {first} on, with a 95 % interval of "
        f"{low:.3g} to {high:.3g}"
    )
    if low > 0.0:
        return Fate("growing", f"the distance went by {told}")
    ends = MIN_STEPS // 2
    leap = float(np.median(log[-ends:]) - np.median(log[:ends]))
    if leap >= _LEAP:
        return Fate("growing", f"the distance rose {math.exp(leap):.2g}-fold, in leaps: {told}")
    return Fate("dormant", f"the distance went by {told}")
