"""The stacked engine: many twins of one run and a control, as members of one model.

The sequential engine takes a step of every copy in turn, in the arithmetic of the plain run. Here
one call computes all members (`nondet_probe.probe.members`), which is many twins for the price of
few where a step is short; but a product of many matrices may round otherwise than one matrix's
does. So the run that the twins are compared with is a member too, not the plain run; how far those
two drift apart is measured and told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nondet_probe.bits import BitChange, compare, flip_bit
from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.errors import RunFailedError, UsageError, unknown_name
from nondet_probe.probe.drive import Batches, build, finite_loss, guarded_step
from nondet_probe.probe.inject.apply import apply
from nondet_probe.probe.members import Members
from nondet_probe.probe.stackable import rehearse, require_stackable
from nondet_probe.probe.state import first_difference
from nondet_probe.probe.trees import copy_tree
from nondet_probe.records.fault import Fault
from nondet_probe.workload import Workload, WorkloadFactory

__all__ = ["CONTROL", "RUN", "TWINS", "Change", "StackedLockstep", "StackedRun", "stacked"]

RUN, CONTROL, TWINS = 0, 1, 2
"""Numbers of members: the unperturbed run, the control, the first twin."""

Change = Fault | tuple[str, int, int]
"""What is changed in one twin: a fault, or (name of a parameter, flat index, bit)."""

Observe = Callable[[int, Members], None]


@dataclass
class StackedRun:
    """What was seen. changes: of the twins, in their order. losses: one row a step, one column a
    member (RUN, CONTROL, then the twins), exact. plain_losses: the plain run's.

    place: a leaf of the state, or "loss", whose bits depended on a member's place in the stack as
    all members were stepped twice without a change, before the training; None where none did.
    differs, differs_step: the first leaf of the state, or "loss", in which the control left the
    stacked run, and after which step. first_distance, distance: relative distance (L2, all
    parameters) of the stacked run from the plain one after the first step and after the last.
    """

    changes: list[BitChange]
    losses: list[list[float]] = field(default_factory=list)
    plain_losses: list[float] = field(default_factory=list)
    place: str | None = None
    differs: str | None = None
    differs_step: int | None = None
    first_distance: float = math.nan
    distance: float = math.nan

    @property
    def no_growth(self) -> str | None:
        """Why no growth may be told; None where it may."""
        if self.place is None and self.differs_step is None:
            return None
        what = (
            f"what a member gets depends on its place in the stack: {self.place} has other bits in "
            "another place when nothing is changed"
            if self.place is not None
            else f"the control left the stacked run at step {self.differs_step} in {self.differs}"
        )
        return (
            f"{what}, so a distance is not the changed bit's doing alone; follow the twins with "
            "the sequential engine"
        )

    @property
    def arithmetic(self) -> str:
        """What every report of this run has to say."""
        return (
            "The arithmetic of a stacked run is not that of the plain run: all members are "
            "computed in one call, which may round otherwise. Its own unperturbed member lay "
            f"{self.first_distance:.2g} from the plain run after the first step and "
            f"{self.distance:.2g} after {len(self.losses)} steps (relative L2 distance over all "
            "parameters); twins are compared with that member."
        )


def stacked(
    factory: WorkloadFactory,
    changes: Sequence[Change],
    *,
    seed: int = 0,
    steps: int = 100,
    observe: Observe | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> StackedRun:
    """Train the run, a control and one twin for each of `changes` as members of one model.

    changes: each flips or steps one element of one parameter before step 0: (name, flat index, bit)
    or a Fault of site weight or bias at step 0, before forward. observe: called after every step
    with (step, members); `members.member(n)` is a member as the measures take it
    (`Distances(members.member(RUN)).add(members.member(RUN), members.member(n))`), and
    `members.model(n)` one that can be called, for `evaluate`. It must write to none of them.
    progress: called with (what, steps done, steps).

    The plain run is taken along, step by step, for the distance in `StackedRun.arithmetic`. The
    process's random streams are put back as they were.

    Raises UsageError before any step for what cannot be changed or cannot be stacked, with the
    reason, and RunFailedError where a step fails; its `partial` is the StackedRun until there.
    """
    if steps < 1:
        raise UsageError(f"steps={steps}: a twin needs at least 1")
    with preserved_rng():
        copies = _started(factory, seed, changes)
        batches = Batches(copies.run, steps)
        for step in range(steps):
            try:
                copies.step(step, batches)
            except RunFailedError as error:
                error.partial = copies.seen
                raise
            if observe is not None:
                observe(step, copies.members)
            if progress is not None:
                progress("stacked twins", step + 1, steps)
        copies.seen.distance = _distance(copies.run, copies.members)
    return copies.seen


class StackedLockstep:
    """The plain run and the members, stepped together. run, stacking, rehearsed: three builds of
    one workload, the last two of which are used up. members, seen: as they are by now.

    Raises UsageError for a change that cannot be made.
    """

    def __init__(
        self,
        run: Workload,
        stacking: Workload,
        rehearsed: Workload,
        changes: Sequence[Change],
    ) -> None:
        self.run = run
        self._rehearsed: Workload | None = rehearsed
        self.members = Members(stacking, TWINS + len(changes))
        self.seen = StackedRun(
            [
                _changed(stacking, self.members, number, change)
                for number, change in enumerate(changes, TWINS)
            ]
        )

    def step(self, step: int, batches: Batches) -> None:
        """One step of the plain run and one of all members, on one batch and from the same state of
        the random streams; afterwards these are as the plain run's step left them.

        The first batch is rehearsed on before anything is trained: UsageError where that cannot be
        stacked. Raises RunFailedError; nothing of a failed step is kept in `seen`.
        """
        batch = batches.draw(step)
        if self._rehearsed is not None:
            self.seen.place = rehearse(self._rehearsed, batch, self.members.count)
            self._rehearsed = None
        drawn = RngState.capture()
        (for_members,) = copy_tree(batch, 1)
        loss = finite_loss(guarded_step(self.run, batch, step), step)
        stepped = RngState.capture()
        drawn.restore()
        try:
            losses = self.members.step(for_members).tolist()
        except Exception as error:
            raise RunFailedError(
                f"step {step} of the stacked members failed: {type(error).__name__}: {error}",
                step=step,
            ) from error
        stepped.restore()
        seen = self.seen
        if seen.differs_step is None:
            seen.differs = first_difference(self.members.member(RUN), self.members.member(CONTROL))
            if seen.differs is None and losses[RUN].hex() != losses[CONTROL].hex():
                seen.differs = "loss"
            if seen.differs is not None:
                seen.differs_step = step
        seen.losses.append(losses)
        seen.plain_losses.append(loss)
        if step == 0:
            seen.first_distance = _distance(self.run, self.members)


def _started(factory: WorkloadFactory, seed: int, changes: Sequence[Change]) -> StackedLockstep:
    """Three builds and what is known to be wrong with them; the streams as the first one left
    them."""
    run = build(factory, seed)
    built = RngState.capture()
    # Said before anything else is built, and of the others as well: they might not be alike.
    require_stackable(run)
    builds = run, build(factory, seed), build(factory, seed)
    _require_apart(*builds)
    differs = first_difference(*builds[:2]) or first_difference(*builds[::2])
    if differs is not None:
        raise UsageError(
            f"building the workload is itself nondeterministic: {differs} differs between two "
            "calls of the workload function with the same seed, so no twin can be compared"
        )
    copies = StackedLockstep(*builds, changes)
    built.restore()
    return copies


def _changed(stacking: Workload, members: Members, number: int, change: Change) -> BitChange:
    """Change one member; the model of `stacking` is as it was."""
    if isinstance(change, Fault):
        if change.site not in ("weight", "bias") or change.step or change.when != "before forward":
            raise UsageError(
                f"{change}: a stacked twin is changed in a weight or bias at step 0, before "
                "forward; follow other twins with the sequential engine"
            )
        applied = apply(change, stacking.model, stacking.optimizer)
        applied.undo()
        name = next(
            name
            for name, value in stacking.model.named_parameters()
            if value is applied.target.tensor
        )
        applied.change.replay(members.parameters[name].detach()[number])
        return applied.change
    name, index, bit = change
    if name not in members.parameters:
        raise unknown_name("parameter", name, members.parameters)
    try:
        return flip_bit(members.parameters[name].detach()[number], index, bit, name)
    except (TypeError, UsageError) as error:
        raise UsageError(f"parameter {name!r}: {error}") from error


def _require_apart(*builds: Workload) -> None:
    seen: set[int] = set()
    for one in builds:
        require_stackable(one)
        mine = {value.data_ptr() for value in one.model.parameters()} - {0}
        if seen & mine:
            raise UsageError(
                "two calls of the workload function gave models that share parameters; it must "
                "build a new model and a new optimizer every time it is called"
            )
        seen |= mine


def _distance(run: Workload, members: Members) -> float:
    """Of the stacked run from the plain one: L2 of the difference over L2 of the plain run."""
    found = [
        compare(value, members.parameters[name].detach()[RUN])
        for name, value in run.model.named_parameters()
    ]
    apart = sum(pair.sum_squares_difference for pair in found)
    norm = sum(pair.sum_squares for pair in found)
    return float(np.sqrt(apart) / np.sqrt(norm)) if apart else 0.0
