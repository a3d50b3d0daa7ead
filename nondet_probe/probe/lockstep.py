"""Three copies of one training run, stepped together: the run, its twin and its control."""

from __future__ import annotations

import time

from nondet_probe.env.rng import RngState
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.distance import Distances, share_different
from nondet_probe.probe.drive import Batches, finite_loss, guarded_step
from nondet_probe.probe.state import first_difference
from nondet_probe.probe.trees import copy_tree
from nondet_probe.workload import Workload

__all__ = ["BUILT", "Lockstep"]

BUILT = -1
"""The "step" of a difference that was there before the first step."""


class Lockstep:
    """The copies and what has been seen of them so far.

    differs, differs_step: the first leaf of the state, or "loss", in which the control left the
    run, and the step after which it had; BUILT when two copies differed as they were built.
    absorbed_step: first step after which the twin's state was the run's again and stayed so.
    spread_step: first step after which more than one element differed. plain_seconds: the run's own
    share of the steps, probe_seconds: all of them.

    Raises UsageError when copies share parameters or hold tensors whose bits cannot be read.
    """

    def __init__(self, run: Workload, twin: Workload, control: Workload) -> None:
        self.run, self.twin, self.control = run, twin, control
        _refuse_shared_memory(run, twin, control)
        self.differs = first_difference(run, control) or first_difference(run, twin)
        self.differs_step = None if self.differs is None else BUILT
        self.absorbed_step: int | None = None
        self.spread_step: int | None = None
        self.distances = Distances(run)
        self.losses: list[float] = []
        self.twin_losses: list[float] = []
        self.control_shares: list[float] = []
        self.plain_seconds = self.probe_seconds = 0.0

    def step(self, step: int, batches: Batches) -> None:
        """One step of all three on one batch, each from the same state of the random streams.

        Afterwards the streams are as the run's own step left them. Raises RunFailedError; nothing
        of a failed step is kept.
        """
        start = time.perf_counter()
        batch = batches.draw(step)
        drew = time.perf_counter()
        drawn = RngState.capture()
        # Before the run's own step, which may write into its batch.
        for_twin, for_control = copy_tree(batch, 2)
        begun = time.perf_counter()
        loss = finite_loss(guarded_step(self.run, batch, step), step)
        ended = time.perf_counter()
        stepped = RngState.capture()
        drawn.restore()
        # A twin's loss that is not finite is a finding, not a failure.
        twin_loss = float(guarded_step(self.twin, for_twin, step, "the twin"))
        drawn.restore()
        control_loss = float(guarded_step(self.control, for_control, step, "the control"))
        stepped.restore()
        try:
            self._compare(step, loss, control_loss)
        except ValueError as error:
            raise RunFailedError(f"step {step} cannot be compared: {error}", step=step) from error
        self.losses.append(loss)
        self.twin_losses.append(twin_loss)
        self.plain_seconds += drew - start + ended - begun
        self.probe_seconds += time.perf_counter() - start

    def _compare(self, step: int, loss: float, control_loss: float) -> None:
        differs = first_difference(self.run, self.control)
        if differs is None and loss.hex() != control_loss.hex():
            differs = "loss"
        share = 0.0
        if differs is not None:
            share = share_different(self.run.model, self.control.model)
            if self.differs_step is None:
                self.differs_step, self.differs = step, differs
        apart = self.distances.add(self.run, self.twin)
        self.control_shares.append(share)
        if self.spread_step is None and apart.parameters > 1:
            self.spread_step = step
        if apart.first is not None:
            self.absorbed_step = None
        elif self.absorbed_step is None:
            self.absorbed_step = step


def _refuse_shared_memory(*copies: Workload) -> None:
    seen: set[int] = set()
    for copy in copies:
        mine = {value.data_ptr() for value in copy.model.parameters()} - {0}
        if seen & mine:
            raise UsageError(
                "two calls of the workload function gave models that share parameters; it must "
                "build a new model and a new optimizer every time it is called"
            )
        seen |= mine
