"""What determinism costs a workload: whole steps side by side, and where in them the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.env.switches import deterministic_algorithms
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.costs import Timed, cost_record
from nondet_probe.probe.drive import Batches, build, finite_loss, guarded_step
from nondet_probe.probe.optimes import OpTimes
from nondet_probe.probe.unwritten import fill_needed
from nondet_probe.records.schema import CostRecord
from nondet_probe.workload import WorkloadFactory

__all__ = ["ARMS", "ATTRIBUTED", "Arms", "cost"]

Arms = Mapping[str, Callable[[], AbstractContextManager[Any]]]

# "default" is torch's default, not the switches as found: determinism is off in it even where the
# process has it on, since a ratio to a run that is deterministic already would say nothing.
ARMS: Arms = {
    "default": lambda: deterministic_algorithms(False),
    "deterministic": lambda: deterministic_algorithms(True, fill=True),
    "deterministic, no fill": lambda: deterministic_algorithms(True, fill=False),
}
ATTRIBUTED = 3
"""Steps of each arm in which every op is timed."""
_FILL_STEPS = 2


def cost(
    factory: WorkloadFactory,
    *,
    seed: int = 0,
    steps: int = 10,
    further: Arms | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CostRecord:
    """Time `steps` steps of the workload in each arm, after one step to warm up.

    Arms: "default" (determinism off), "deterministic" (on, and memory that torch hands out
    uninitialised is filled, torch's default), "deterministic, no fill" (without the filling), and
    those of `further`: name, and a function that makes the context of a step, such as
    `{"reproducible": nondet_probe.reproducible}`; determinism is off in them. Each is a run of its
    own from the same seed, with its own random streams; the steps of the arms alternate, in an
    order that rotates, so that a slow moment of the machine hits all alike. A step is timed with
    the drawing of its batch. So `steps` + 1 batches are needed.

    After that each arm takes ATTRIBUTED more steps on its last batch, with every op timed. At the
    end the workload is run with three contents of new memory, to tell whether the fill is needed.

    An arm that raises (an op without a deterministic implementation) ends with its error; the
    others go on. Switches and random streams are put back. Raises UsageError, and RunFailedError
    when the workload fails in the default arm, with the CostRecord so far as its `partial`.
    """
    if steps < 1:
        raise UsageError(f"steps={steps}: at least 1 step must be timed")
    arms = [_Arm(name, context) for name, context in _all(further).items()]
    timed = [arm.timed for arm in arms]
    rounds = steps + 1 + ATTRIBUTED
    with preserved_rng():
        for arm in arms:
            with _allowed_to_fail(arm, timed):
                arm.start(factory, seed, steps + 1)
        for step in range(rounds):
            first = step % len(arms)
            for arm in arms[first:] + arms[:first]:
                if arm.timed.error is None:
                    if step > steps:
                        arm.attributed_step(step)
                        continue
                    with _allowed_to_fail(arm, timed):
                        arm.step(step)
            if progress is not None:
                progress("cost of determinism", step + 1, rounds)
        record = cost_record(timed)
        record.fill_needed, record.fill_reason = fill_needed(
            factory, seed, min(_FILL_STEPS, steps + 1)
        )
    return record


def _all(further: Arms | None) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    arms = dict(ARMS)
    for name, context in (further or {}).items():
        if name in arms:
            raise UsageError(f"further arm {name!r}: there is one of that name already")
        arms[name] = partial(_without_determinism, context)
    return arms


@contextmanager
def _without_determinism(context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    with deterministic_algorithms(False), context():
        yield


class _Arm:
    """One copy of the workload, the switches it runs under and its own random streams."""

    def __init__(self, name: str, context: Callable[[], AbstractContextManager[Any]]) -> None:
        self.timed, self.context = Timed(name), context

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
            self.batch = self.batches.draw(step)
            loss = guarded_step(self.workload, self.batch, step)
            finite_loss(loss, step)  # reads the loss, so a GPU's work is done as well
            seconds = time.perf_counter() - start
        self.streams = RngState.capture()
        if step:
            self.timed.seconds.append(seconds)

    def attributed_step(self, step: int) -> None:
        """One more step on the last batch, with its ops timed; one that fails is left out."""
        self.streams.restore()
        times = OpTimes()
        try:
            with self.context(), times:
                guarded_step(self.workload, self.batch, step)
        except RunFailedError:
            return
        self.streams = RngState.capture()
        self.timed.ops.append(times.taken())


@contextmanager
def _allowed_to_fail(arm: _Arm, timed: list[Timed]) -> Iterator[None]:
    """A failure is the arm's result; in the default arm it is the workload's, and goes on."""
    try:
        yield
    except RunFailedError as error:
        if arm.timed.name == "default":
            error.partial = cost_record(timed)
            raise
        arm.timed.error = str(error)
