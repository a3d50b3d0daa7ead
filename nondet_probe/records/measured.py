"""What became of one changed bit, beyond the series: which tensors, which fate, which outputs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fate", "Growth", "MeasuredTensor", "Predictions"]


@dataclass
class MeasuredTensor:
    """One tensor of the state of training that was compared after every step.

    kind: "parameter", "buffer", "optimizer" or "gradient" (as the step left it). name: such as
    "conv1.bias", of the optimizer's "momentum_buffer of conv1.bias". dtype: "float32".
    """

    kind: str
    name: str
    elements: int
    dtype: str


@dataclass
class Fate:
    """What became of the change over the whole run.

    verdict:
        "absorbed"    from `step` on no bit of the state differs, to the end of the run
        "dormant"     bits differ still, but the distance does not grow
        "growing"     the distance grows to the end of the run
        "saturated"   it grew, and from `step` on it stays near `level`
        "not finite"  at `step` the distance was not a finite number any more
        "unknown"     there is no telling, and `reason` says why
    reason: a clause that says what the verdict rests on. level: a relative distance, as the series
    "distance".
    """

    verdict: str
    reason: str
    step: int | None = None
    level: float | None = None


@dataclass
class Growth:
    """Exponential fit of the distance between the twins: log distance against step.

    rate: natural-log units a step; low, high: 95 % confidence interval of `rate`; first_step,
    last_step: the steps fitted; r2: share of variance explained; doubling_steps: ln 2 / rate.
    """

    rate: float
    low: float
    high: float
    first_step: int
    last_step: int
    r2: float
    doubling_steps: float | None


@dataclass
class Predictions:
    """The outputs of the model at the end of the run and of its twin, on the same examples: all
    that the workload's `evaluate` called the model with.

    examples: rows of outputs, the last dimension taken out; disagreement: share of them whose
    largest output has another index, None where a row has fewer than two; distance: L2 of the
    difference of all outputs over the L2 of the run's (inf where that is 0); max_ulp: largest ulp
    distance.
    """

    examples: int
    disagreement: float | None
    distance: float
    max_ulp: int | None
