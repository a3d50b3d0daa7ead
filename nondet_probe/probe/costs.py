"""Times of the arms of a cost measurement, to the record of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch

from nondet_probe.records.schema import CostArm, CostRecord, OpCost

__all__ = ["Timed", "cost_record"]


@dataclass
class Timed:
    """One arm. seconds: of each step; ops: of each attributed step, overload -> (calls, seconds);
    error: why it ended."""

    name: str
    seconds: list[float] = field(default_factory=list)
    ops: list[dict[str, tuple[int, float]]] = field(default_factory=list)
    error: str | None = None


def cost_record(arms: Sequence[Timed]) -> CostRecord:
    """The record of some arms, the first of which is the one that the others are compared with."""
    default = arms[0].seconds
    return CostRecord(
        steps=len(default),
        threads=torch.get_num_threads(),
        arms=[_summary(arm, default) for arm in arms],
        ops=_attribution(arms),
    )


def _summary(arm: Timed, default: list[float]) -> CostArm:
    # An arm that ended early, or is one step ahead, is compared over the steps that both have.
    both = min(len(arm.seconds), len(default))
    summary = CostArm(arm.name, arm.seconds, error=arm.error)
    if both:
        low, middle, high = np.quantile(
            np.array(arm.seconds[:both]) / np.array(default[:both]), [0.25, 0.5, 0.75]
        )
        summary.ratio, summary.spread = float(middle), (float(low), float(high))
    return summary


def _attribution(arms: Sequence[Timed]) -> list[OpCost]:
    """Ops of all arms, that first of which determinism costs most beyond the default."""
    names = dict.fromkeys(name for arm in arms for step in arm.ops for name in step)
    found = [_op_cost(name, arms) for name in names]

    def dearness(op: OpCost) -> tuple[float, str]:
        return -(op.seconds.get("deterministic", 0.0) - op.seconds.get("default", 0.0)), op.op

    return sorted(found, key=dearness)


def _op_cost(name: str, arms: Sequence[Timed]) -> OpCost:
    cost = OpCost(name)
    for arm in arms:
        if arm.ops:
            steps = [step.get(name, (0, 0.0)) for step in arm.ops]
            cost.calls = max(cost.calls, *(calls for calls, _ in steps))
            cost.seconds[arm.name] = median(seconds for _, seconds in steps)
    return cost
