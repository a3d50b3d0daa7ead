"""Copies of one training run, stepped together: the run, its twins and its control."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nondet_probe.env.rng import RngState
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.distance import share_different
from nondet_probe.probe.drive import Batches, finite_loss, guarded_step
from nondet_probe.probe.follower import Follower
from nondet_probe.probe.state import first_difference
from nondet_probe.probe.trees import copy_tree
from nondet_probe.workload import Workload

__all__ = ["BUILT", "Lockstep"]

BUILT = -1
"""The "step" of a difference that was there before the first step."""


class Lockstep:
    """The copies and what has been seen of them so far. followers: each with a copy of
    its own, in which the changes due before step 0 are made here.

    differs, differs_step: the first leaf of the state, or "loss", in which the control left the
    run, or a follower did before anything was changed in it, and the step after which it had;
    BUILT when two copies differed as they were built. evaluation: figures of the run at its end.
    plain_seconds: the run's own share of the steps, probe_seconds: all of them.

    Raises UsageError when copies share parameters or hold tensors whose bits cannot be read.
    """

    def __init__(self, run: Workload, followers: Sequence[Follower], control: Workload) -> None:
        self.run, self.followers, self.control = run, list(followers), control
        copies = [control, *(one.workload for one in self.followers)]
        _refuse_shared_memory(run, *copies)
        self.differs = next(filter(None, (first_difference(run, one) for one in copies)), None)
        self.differs_step = None if self.differs is None else BUILT
        for one in self.followers:
            one.begin(run, 0)
        self.losses: list[float] = []
        self.control_shares: list[float] = []
        self.evaluation: dict[str, float] = {}
        self.plain_seconds = self.probe_seconds = 0.0

    def step(self, step: int, batches: Batches) -> None:
        """One step of all on one batch, each from the same state of the random streams.

        Afterwards the streams are as the run's own step left them. Raises RunFailedError; nothing
        of a failed step is kept.
        """
        start = time.perf_counter()
        following = [one for one in self.followers if one.born <= step]
        for one in following if step else []:
            try:
                one.begin(self.run, step)
            except UsageError as error:
                raise RunFailedError(f"step {step} of {one.told}: {error}", step=step) from error
        began = time.perf_counter()
        batch = batches.draw(step)
        drew = time.perf_counter()
        drawn = RngState.capture()
        # Before the run's own step, which may write into its batch.
        [kept] = copy_tree(batch, 1)
        begun = time.perf_counter()
        loss = finite_loss(guarded_step(self.run, batch, step), step)
        ended = time.perf_counter()
        stepped = RngState.capture()
        losses = []
        for one in following:
            [own] = copy_tree(kept, 1)
            drawn.restore()
            # A twin's loss that is not finite is a finding, not a failure.
            losses.append(one.step(own, step))
        drawn.restore()
        control_loss = float(guarded_step(self.control, kept, step, "the control"))
        stepped.restore()
        try:
            self._compare(step, loss, control_loss, following, losses)
        except ValueError as error:
            raise RunFailedError(f"step {step} cannot be compared: {error}", step=step) from error
        self.losses.append(loss)
        self.plain_seconds += drew - began + ended - begun
        self.probe_seconds += time.perf_counter() - start

    def _compare(
        self,
        step: int,
        loss: float,
        control_loss: float,
        following: Sequence[Follower],
        losses: Sequence[float],
    ) -> None:
        differs = first_difference(self.run, self.control)
        if differs is None and loss.hex() != control_loss.hex():
            differs = "loss"
        share = 0.0
        if differs is not None:
            share = share_different(self.run.model, self.control.model)
        # All, before anything is kept.
        found = [one.compare(self.run) for one in following]
        for one, its, measured in zip(following, losses, found, strict=True):
            apart = one.keep(step, its, measured)
            if one.since > step:
                differs = differs or apart.first
        if differs is not None and self.differs_step is None:
            self.differs_step, self.differs = step, differs
        self.control_shares.append(share)


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
