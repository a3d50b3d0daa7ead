"""What `torch.use_deterministic_algorithms` costs a workload, measured step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch

from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.env.switches import deterministic_algorithms
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.drive import Batches, build, finite_loss, guarded_step
from nondet_probe.records.schema import CostArm, CostRecord
from nondet_probe.workload import WorkloadFactory

__all__ = ["cost"]

# "default" is torch's default, not the switches as found: determinism is off in it even where the
# process has it on, since a ratio to a run that is deterministic already would say nothing.
_ARMS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "default": lambda: deterministic_algorithms(False),
    "deterministic": lambda: deterministic_algorithms(True, fill=True),
    "deterministic, no fill": lambda: deterministic_algorithms(True, fill=False),
}


def cost(
    factory: WorkloadFactory,
    *,
    seed: int = 0,
    steps: int = 10,
    progress: Callable[[str, int, int], None] | None = None,
) -> CostRecord:
    """Time `steps` steps of the workload in each arm, after one step to warm up.

    Arms: "default" (determinism off), "deterministic" (on, and memory that torch hands out
    uninitialised is filled, torch's default), "deterministic, no fill" (without the filling). Each
    is a run of its own from the same seed, with its own random streams; the steps of the arms
    alternate, in an order that rotates, so that a slow moment of the machine hits all alike. A step
    is timed with the drawing of its batch. So `steps` + 1 batches are needed.

    An arm that raises (an op without a deterministic implementation) ends with its error; the
    others go on. Switches and random streams are put back. Raises UsageError, and RunFailedError
    when the workload fails in the default arm, with the CostRecord so far as its `partial`.
    """
    if steps < 1:
        raise UsageError(f"steps={steps}: at least 1 step must be timed")
    arms = [_Arm(name, context) for name, context in _ARMS.items()]
    with preserved_rng():
        for arm in arms:
            with _allowed_to_fail(arm, arms):
                arm.start(factory, seed, steps + 1)
        for step in range(steps + 1):
            first = step % len(arms)
            for arm in arms[first:] + arms[:first]:
                if arm.error is None:
                    with _allowed_to_fail(arm, arms):
                        arm.step(step)
            if progress is not None:
                progress("cost of determinism", step + 1, steps + 1)
    return _record(arms)


class _Arm:
    """One copy of the workload, the switches it runs under and its own random streams."""

    def __init__(self, name: str, context: Callable[[], AbstractContextManager[None]]) -> None:
        self.name, self.context = name, context
        self.seconds: list[float] = []
        self.error: str | None = None

    def start(self, factory: WorkloadFactory, seed: int, steps: int) -> None:
        with self.context():
            self.workload = build(factory, seed)
        self.batches = Batches(self.workload, steps)
        self.streams = RngState.capture()

    def step(self, step: int) -> None:
        """Step 0 warms up and is not kept."""
        self.streams.restore()
        with self.context():
            start = time.perf_counter()
            loss = guarded_step(self.workload, self.batches.draw(step), step)
            finite_loss(loss, step)  # reads the loss, so a GPU's work is done as well
            seconds = time.perf_counter() - start
        self.streams = RngState.capture()
        if step:
            self.seconds.append(seconds)


@contextmanager
def _allowed_to_fail(arm: _Arm, arms: list[_Arm]) -> Iterator[None]:
    """A failure is the arm's result; in the default arm it is the workload's, and goes on."""
    try:
        yield
    except RunFailedError as error:
        if arm.name == "default":
            error.partial = _record(arms)
            raise
        arm.error = str(error)


def _record(arms: list[_Arm]) -> CostRecord:
    default = arms[0].seconds
    found = [_summary(arm, default) for arm in arms]
    return CostRecord(steps=len(default), threads=torch.get_num_threads(), arms=found)


def _summary(arm: _Arm, default: list[float]) -> CostArm:
    # An arm that ended early, or is one step ahead, is compared over the steps that both have.
    both = min(len(arm.seconds), len(default))
    summary = CostArm(arm.name, arm.seconds, error=arm.error)
    if both:
        low, middle, high = np.quantile(
            np.array(arm.seconds[:both]) / np.array(default[:both]), [0.25, 0.5, 0.75]
        )
        summary.ratio, summary.spread = float(middle), (float(low), float(high))
    return summary
