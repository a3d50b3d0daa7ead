"""Copies of one training run in lockstep, each one bit away from it, and a control.

The run is driven as it would be without the probe; the twins and the control repeat each of its
steps on the same batch and from the same state of the random streams. A twin shows what becomes of
the smallest possible change; the control, in which nothing is changed, shows that nothing else made
the difference.

Limits. Batches are drawn from the run's own workload only; the iterators of the copies are never
started. So a generator of the workload's own from which both its batches and its steps draw gets
out of step in the copies, and the control says so. The same holds for whatever the copies share in
the process: a global counter, a cache, the clock. A changed state of a random generator lasts for
one step, and does not reach the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.drive import Batches, build, evaluated
from nondet_probe.probe.fixes import under_fix
from nondet_probe.probe.follower import Follower
from nondet_probe.probe.lockstep import BUILT, Lockstep
from nondet_probe.probe.predictions import predictions, watched
from nondet_probe.probe.twin_changes import Change, at_step, checked_steps, flips, numbered
from nondet_probe.probe.twin_record import AtStep, onset, record_of
from nondet_probe.records.fault import Fault
from nondet_probe.records.schema import TwinRecord
from nondet_probe.workload import WorkloadFactory

__all__ = ["twin"]


def twin(
    factory: WorkloadFactory,
    *,
    seed: int = 0,
    steps: int = 100,
    name: str | None = None,
    index: int | None = None,
    bit: int = 0,
    under: str = "",
    twins: int = 1,
    fault: Fault | None = None,
    at: Sequence[int] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> TwinRecord:
    """Flip `bit` (0 the least significant) of one weight and follow what becomes of it.

    name: the parameter; None takes the first floating-point one with two dimensions or more in the
    order of `model.named_parameters()`, or else the first floating-point one. index: flat,
    row-major; None draws one uniformly with a generator of its own, seeded with `seed`. under: the
    name of a fix (`nondet_probe.probe.fixes`) that holds for all of it; "" for none. progress:
    called with (what, steps done, steps).

    twins: how many there are, each with another element, drawn without replacement; a model copy
    each. The record is of the first one, and `TwinRecord.twins` of all. fault: what is changed,
    where and at which step, in place of name, index and bit; twin number i has the draw that is i
    further than the fault's number. at: the steps before which, or in which, the change is made, in
    place of the fault's own. The twins of the first of these steps follow the run from its
    beginning; those of each further one, and a control of their own, take the run's state over when
    the step comes.

    The process's random streams are put back as they were. A control that leaves the run does not
    end it; two builds that differ do, since nothing could be compared (`TwinRecord` says how that
    is recorded).

    Raises UnknownNameError and UsageError for what cannot be done, before any step is run, and
    RunFailedError when the workload fails, or at its step there is nothing of what a fault asks
    for; its `partial` is the TwinRecord of the steps done.
    """
    if steps < 1:
        raise UsageError(f"steps={steps}: a twin needs at least 1")
    if isinstance(twins, bool) or not isinstance(twins, int) or twins < 1:
        raise UsageError(f"twins={twins!r}: how many there are, a whole number from 1 up")
    when = _when(fault, at, steps, (name, index, bit))
    with preserved_rng(), under_fix(under):
        run = build(factory, seed)
        built = RngState.capture()
        if fault is not None:
            fault = replace(fault, step=when[0])
        changes = (
            numbered(fault, twins)
            if fault is not None
            else flips(run.model, twins, seed=seed, name=name, index=index, bit=bit)
        )

        def follower(
            told: str, change: Change | None, born: int = 0, first: bool = False
        ) -> Follower:
            return Follower(run, build(factory, seed), told, change, born, brief=not first)

        planned = _planned(follower, changes, when)
        followers = [one for step in planned for one in step.followers]
        copies = Lockstep(run, followers, build(factory, seed))
        ended = False
        try:
            if copies.differs_step != BUILT:
                built.restore()
                batches = Batches(run, steps)
                what = "twin" if twins == 1 else f"{twins} twins"
                for step in range(steps):
                    copies.step(step, batches)
                    if progress is not None:
                        progress(f"{what} under {under}" if under else what, step + 1, steps)
                _evaluate(copies, steps)
                ended = True
        except RunFailedError as error:
            error.partial = _record(copies, planned, under, fault, at is not None, ended)
            raise
    return _record(copies, planned, under, fault, at is not None, ended)


def _when(
    fault: Fault | None,
    at: Sequence[int] | None,
    steps: int,
    place: tuple[str | None, int | None, int],
) -> list[int]:
    """The steps of the change."""
    if fault is not None and not isinstance(fault, Fault):
        raise UsageError(
            f"fault: a nondet_probe.Fault is needed, not {type(fault).__name__}; load_fault reads "
            "a file"
        )
    if fault is not None and place != (None, None, 0):
        raise UsageError("with a fault, name, index and bit are the fault's own: leave them out")
    if at is not None:
        return checked_steps(at, steps)
    step = fault.step if fault is not None else 0
    if step >= steps:
        raise UsageError(
            f"step {step} of the fault is beyond the run: its {steps} steps are 0 to {steps - 1}"
        )
    return [step]


def _planned(
    follower: Callable[..., Follower], changes: Sequence[Change], when: Sequence[int]
) -> list[AtStep]:
    """The followers of each step of the change; those of the first one are there from step 0 on."""
    several = len(changes) > 1
    found = []
    for place, step in enumerate(when):
        born = step if place else 0
        which = f" of step {step}" if place else ""
        twins = [
            follower(
                (f"twin {number}" if several else "the twin") + which,
                at_step(change, step),
                born,
                first=not place and not number,
            )
            for number, change in enumerate(changes)
        ]
        control = follower(f"the control{which}", None, born) if place else None
        found.append(AtStep(step, twins, control))
    return found


def _record(
    copies: Lockstep,
    planned: Sequence[AtStep],
    under: str,
    fault: Fault | None,
    with_onset: bool,
    ended: bool,
) -> TwinRecord:
    record = record_of(copies, planned[0].twins, under=under, fault=fault, ended=ended)
    if with_onset:
        record.onset = onset(copies, planned, ended)
    return record


def _evaluate(copies: Lockstep, steps: int) -> None:
    """The figures of all, from the same state of the random streams, and their outputs."""
    if copies.run.evaluate is None:
        for one in copies.followers:
            one.no_predictions = "the workload has no evaluate"
        return
    stepped = RngState.capture()
    with watched(copies.run.model) as outputs:
        copies.evaluation = evaluated(copies.run, steps)
    for one in copies.followers:
        if one.fault is None:
            continue
        stepped.restore()
        with watched(one.workload.model) as its:
            one.evaluation = evaluated(one.workload, steps)
        one.predictions, one.no_predictions = predictions(outputs, its)
