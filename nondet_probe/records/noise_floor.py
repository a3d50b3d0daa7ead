"""Where the distance of two runs lies among the distances that one changed bit makes."""

from __future__ import annotations

from dataclasses import dataclass, field

from nondet_probe.records.drift import Drift, DriftCurve

__all__ = ["OUTCOMES", "FanBand", "NoiseFloor", "Placing", "TwinCurve"]

OUTCOMES = (
    "equal",  # the sketches are the same at every step
    "below",  # they differ by no more than a sketch resolves
    "not finite",  # no distance of the two runs is a number
    "nondeterministic",  # the command does not repeat itself: nothing is said about one bit
    "one bit",  # the runs are as far apart as one bit changed at some step makes them
    "larger",
    "smaller",
    "unlike",  # above the twins at some steps and below them at others
    "unknown",  # too few twins have a distance where the runs have one
)
"""What came of placing two runs on the fan."""


@dataclass
class Placing:
    """outcome: of OUTCOMES. window: first and last step at which the runs are further apart than a
    sketch resolves, None where there is none. step, first, last: of "one bit", the step at which
    the bit would have been changed, and its interval; open: steps before `first` could not be
    tried. factor, factor_low, factor_high: the distance of the runs over that of the twins at the
    same step, the median over the window, and its interval; None where the twins have none. above,
    below: at how many of the `compared` steps of the window (500 of a longer one) the runs lie
    above and below the band of the twins, at the same step. tried: the earliest step that could be
    tried. reason: of "unknown"."""

    outcome: str
    window: tuple[int, int] | None = None
    step: int | None = None
    first: int | None = None
    last: int | None = None
    open: bool = False
    factor: float | None = None
    factor_low: float | None = None
    factor_high: float | None = None
    above: int = 0
    below: int = 0
    compared: int = 0
    tried: int | None = None
    reason: str | None = None


@dataclass
class FanBand:
    """The band of the twins: at `ages`, steps since the change, the relative distances between
    which a further twin is expected, and the middle of the twins that have one; NaN where fewer
    than two have, 0 where all were absorbed."""

    ages: list[int] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    middle: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass
class TwinCurve:
    """One twin, measured against the control, from the step of the change on. fault: what was
    changed, in words. absorbed: the step from which on its sketches are the control's to the end;
    broken: the first at which its distance is not finite; None where there is none. reused: it was
    recorded by an earlier call."""

    run: str
    fault: str
    steps: list[int]
    relative: list[float]
    absorbed: int | None
    broken: int | None
    reused: bool


@dataclass
class NoiseFloor:
    """drift: the two runs, of which the first is the reference. at: the step at which the twins
    were changed, None where none were needed. control: the first run's command run again, against
    the first run. folder: holds control and twins; None where nothing was run. resolution: relative
    distances at or below it are rounding of the sketches."""

    drift: Drift
    placing: Placing
    at: int | None
    control: DriftCurve | None
    twins: list[TwinCurve]
    band: FanBand
    folder: str | None
    resolution: float
    warnings: list[str] = field(default_factory=list)

    @property
    def observed(self) -> DriftCurve:
        return self.drift.curves[0]
