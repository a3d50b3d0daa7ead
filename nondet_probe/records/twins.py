"""What became of several twins, and what they say together: condition number, onset."""

from __future__ import annotations

from dataclasses import dataclass, field

from nondet_probe.bits.flip import BitChange
from nondet_probe.records.measured import Fate, Growth, Predictions

__all__ = ["Condition", "Followed", "Onset"]


@dataclass
class Followed:
    """What became of one of several twins; the fields are those of TwinRecord."""

    change: BitChange | None
    absorbed_step: int | None = None
    half_step: int | None = None
    growth: Growth | None = None
    no_growth: str | None = None
    fate: Fate | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    predictions: Predictions | None = None
    no_predictions: str | None = None


@dataclass
class Condition:
    """A lower bound of the condition number of training: the relative change of a result over the
    relative change of the parameters that brought it about.

    of: "weights" (all parameters after the last step) or "outputs" (of the model where it is
    evaluated), their change the L2 of the difference over the L2 of the run's; or "loss" (of the
    last step), its change |difference| / |the run's|.
    norm: of the change of the parameters. "L2": over the L2 of all of them, as they were before it;
    "element": of the changed one, over that one (the largest relative change of any element).
    bound: the largest that a twin gave; bits: its base-2 logarithm, the bits that training loses.
    twins: how many gave a finite figure. median: of theirs; low, high: its 95 % interval, by
    bootstrap over the twins, None where there are fewer than two.
    """

    of: str
    norm: str
    bound: float
    bits: float
    twins: int
    median: float
    low: float | None = None
    high: float | None = None


@dataclass
class Onset:
    """The twins with their change at `step`: one value a twin, as at the end of the run.

    distance: relative distance of the parameters; disagreement: share of examples that the model
    predicts otherwise, None where that is not known; fates: their verdicts. no_figures: why there
    are none, or None.
    """

    step: int
    distance: list[float] = field(default_factory=list)
    disagreement: list[float | None] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    no_figures: str | None = None
