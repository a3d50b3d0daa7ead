"""How far apart recorded runs are, step by step, by their sketches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["Drift", "DriftCurve"]


@dataclass
class DriftCurve:
    """One run against the reference, at `steps`, those that both have a sketch of, rising.

    distances: 2-norm of the difference of all parameters, one for each step; relative: over the
    norm of the reference's (inf where that alone is 0); NaN where either is not finite. first: the
    first step at which the sketches are not the same, bucket by bucket, or None. only_here,
    only_reference: steps that just one of the two runs has a sketch of.
    """

    run: str
    steps: list[int]
    distances: list[float]
    relative: list[float]
    first: int | None
    only_here: int = 0
    only_reference: int = 0

    @property
    def clean(self) -> bool:
        """Whether no distance was seen, and every one is known."""
        return self.first is None and all(map(math.isfinite, self.distances))


@dataclass
class Drift:
    """reference: the run that all others are measured against; runs are folders as given. form: the
    format of the sketches. parameters, elements: of what was sketched at the last step. error: the
    distance is within this share of the true one with probability `confidence` or more. warnings:
    sentences that the reader must know."""

    reference: str
    curves: list[DriftCurve]
    form: str
    parameters: int
    elements: int
    error: float
    confidence: float
    warnings: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return all(curve.clean for curve in self.curves)
