"""The condition number of training, as the twins bound it from below.

Training maps the parameters as they were to what came of them. Its relative condition number is the
largest ratio, over all small changes, of the relative change of the result to the relative change
of the parameters; any change gives a lower bound of it. The bound depends on the norms, so both are
stated with it (`Condition`). A change as small as one bit saturates: once the trajectories have
nothing in common, the ratio says no more than how small the change was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from nondet_probe.bits import BitChange
from nondet_probe.bits.stored import STORED
from nondet_probe.records.twins import Condition

__all__ = ["conditions", "relative_change"]

_RESAMPLES = 2000
_SEED = 0


def relative_change(change: BitChange, norm: float) -> dict[str, float]:
    """Norm (as `Condition.norm`) -> the size of a change of a parameter in it. norm: L2 of all
    parameters before it. Not finite where what it is relative to is 0, or it is no number."""
    before, after = (_value(bits, change.dtype) for bits in (change.before, change.after))
    size = abs(after - before)
    return {
        name: size / scale if scale else math.inf
        for name, scale in (("L2", norm), ("element", abs(before)))
    }


def conditions(
    changes: Sequence[Mapping[str, float]], results: Mapping[str, Sequence[float | None]]
) -> list[Condition]:
    """changes: of each twin, as `relative_change` gives it. results: "weights", "outputs", "loss"
    -> relative change of each twin, None where it is not known. Only twins whose changes are
    finite, that of the parameters not 0, count; what no twin gives a figure for is left out."""
    found = []
    for of, values in results.items():
        for norm in ("L2", "element"):
            ratios = [
                value / change[norm]
                for value, change in zip(values, changes, strict=True)
                if value is not None and math.isfinite(value) and 0.0 < change[norm] < math.inf
            ]
            ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
            if ratios:
                found.append(_condition(of, norm, np.array(ratios)))
    return found


def _condition(of: str, norm: str, ratios: np.ndarray) -> Condition:
    bound = float(ratios.max())
    bits = math.log2(bound) if bound > 0.0 else -math.inf
    low = high = None
    if len(ratios) > 1:
        low, high = _interval(ratios)
    return Condition(of, norm, bound, bits, len(ratios), float(np.median(ratios)), low, high)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % of the median: percentiles over resamples, always the same ones."""
    drawing = np.random.default_rng(_SEED)
    chosen = drawing.integers(0, len(values), (_RESAMPLES, len(values)))
    medians = np.median(values[chosen], axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def _value(bits: str, dtype: str) -> float:
    """The number that an element with these bits (hex) is."""
    kind = getattr(torch, dtype)
    stored = STORED[kind]
    pattern = int(bits, 16)
    signed = pattern - (1 << stored.width) if pattern >> (stored.width - 1) else pattern
    return float(torch.tensor([signed], dtype=stored.integers).view(kind).double())
