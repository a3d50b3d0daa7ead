"""Which op of a training run is nondeterministic? Execute each one `k` times and compare the bits.

`rerun` drives a workload; `Rerun` watches any code.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.census import Census
from nondet_probe.probe.drive import Batches, PlainRun, build, finite_loss, guarded_step, plain_run
from nondet_probe.probe.fixes import SWITCHES, under_fix
from nondet_probe.probe.mode import MEMORY
from nondet_probe.probe.state import first_difference
from nondet_probe.probe.watch import Progress, Rerun, check_k
from nondet_probe.records import RerunRecord
from nondet_probe.workload import Workload, WorkloadFactory

__all__ = ["Rerun", "rerun"]


@dataclass
class _Run:
    """Some steps done. end: the random streams after them."""

    workload: Workload
    losses: list[float]
    end: RngState

    def differs_from(self, other: _Run) -> str | None:
        """Name of the first thing that two runs ended with differently; None where nothing is.

        Raises UsageError naming a tensor whose bits cannot be compared.
        """
        if [loss.hex() for loss in self.losses] != [loss.hex() for loss in other.losses]:
            return "the losses"
        if not self.end.same_as(other.end):
            return "the random streams"
        return first_difference(self.workload, other.workload)


def rerun(
    factory: WorkloadFactory,
    *,
    seed: int = 0,
    steps: int = 2,
    k: int | None = None,
    memory: int = MEMORY,
    census: Census | None = None,
    progress: Progress | None = None,
) -> RerunRecord:
    """Execute every op of the first `steps` steps `k` times in all, and name those that differ.

    k, memory, census: as for `Rerun`; the rows of the census are the `classes` of the record.

    The workload is built three times: for two plain runs (do they repeat each other? does the probe
    change anything?) and for the watched one; and, where an op differed, again under each switch
    that may fix it. The random streams of the process are left as they were.

    Raises UsageError for k < 2 or steps < 1, and RunFailedError, with the RerunRecord so far as its
    `partial`, when the workload fails.
    """
    check_k(k)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise UsageError(f"steps={steps!r}: at least 1 training step is needed")
    tell: Progress = progress or (lambda what, done, total: None)
    with preserved_rng():
        plain = _plain_runs(factory, seed, steps, tell)
        watched = _watched(
            factory, seed, steps, partial(Rerun, k, memory=memory, census=census), tell
        )
        if plain.failure is not None:
            plain.failure.partial = watched.record(fixes=False)
            raise plain.failure
        record = watched.record(fixes=True, tell=tell)
        record.classes = census.rows() if census is not None else []
        record.plain_seconds = plain.seconds
        _judge(record, watched, plain)
        if record.sites:
            _verify(record, factory, seed, partial(Rerun, k, memory=memory), tell)
    return record


@dataclass
class _Plain:
    """Two runs without the probe. run: the second; unequal: the first thing that they ended with
    differently; failure: in their place."""

    run: _Run | None = None
    seconds: float = 0.0
    unequal: str | None = None
    failure: RunFailedError | None = None


def _plain_runs(factory: WorkloadFactory, seed: int, steps: int, tell: Progress) -> _Plain:
    """The first run pays for what a process sets up once, so the second one is timed."""
    tell("plain runs", 0, 2)
    try:
        first = _as_run(plain_run(factory, seed, steps))
        tell("plain runs", 1, 2)
        timed = plain_run(factory, seed, steps)
    except RunFailedError as error:
        if error.step is None:
            raise
        # The run is watched all the same, as far as it goes: what is found there is worth having.
        return _Plain(failure=error)
    second = _as_run(timed)
    tell("plain runs", 2, 2)
    return _Plain(second, sum(timed.seconds), _compared(first, second))


def _as_run(done: PlainRun) -> _Run:
    return _Run(done.workload, done.losses, RngState.capture())


@dataclass
class _Watched:
    """The run under the probe. seconds: of its steps, with the drawing of their batches."""

    watch: Rerun
    run: _Run
    seconds: float

    def record(self, *, fixes: bool, tell: Progress | None = None) -> RerunRecord:
        record = self.watch.found(fixes=fixes, tell=tell, losses=self.run.losses)
        record.steps = len(self.run.losses)
        record.probe_seconds = self.seconds
        return record


def _watched(
    factory: WorkloadFactory,
    seed: int,
    steps: int,
    watching: Callable[..., Rerun],
    tell: Progress,
    what: str = "steps",
) -> _Watched:
    """watching: makes the watch of a model. Raises RunFailedError with the record so far."""
    workload = build(factory, seed)
    batches = Batches(workload, steps)
    watch = watching(model=workload.model)
    done = _Watched(watch, _Run(workload, [], RngState.capture()), 0.0)
    tell(what, 0, steps)
    try:
        for step in range(steps):
            start = time.perf_counter()
            batch = batches.draw(step)
            with watch:
                loss = guarded_step(workload, batch, step)
            done.run.losses.append(finite_loss(loss, step))
            done.seconds += time.perf_counter() - start
            tell(what, step + 1, steps)
    except RunFailedError as error:
        error.partial = done.record(fixes=False)
        raise
    done.run.end = RngState.capture()
    return done


def _compared(one: _Run, other: _Run) -> str | None:
    """As `differs_from`, with a state that cannot be compared as a difference."""
    try:
        return one.differs_from(other)
    except UsageError as error:
        return str(error)


def _judge(record: RerunRecord, watched: _Watched, plain: _Plain) -> None:
    """Fill in `neutral`, with a caveat where the runs say more than the ops."""
    assert plain.run is not None, "plain runs that failed end in an exception"
    record.plain_runs_differ = plain.unequal
    unequal = _compared(watched.run, plain.run)
    if unequal is None:
        record.neutral = True
    elif plain.unequal is not None or record.sites:
        record.neutral = None
    else:
        record.neutral = False
        record.caveats.append(
            f"training under the probe ended with other bits than without it (first: {unequal}), "
            "while two plain runs ended alike"
        )
        record.caveats += watched.watch.mode_dependent()
    if plain.unequal is not None and not record.sites:
        record.caveats.append(
            f"two plain runs ended with different bits (first: {plain.unequal}) although no op was "
            "seen to differ: the cause lies outside of the ops that were executed again, or shows "
            "too rarely for so few executions"
        )


def _verify(
    record: RerunRecord,
    factory: WorkloadFactory,
    seed: int,
    watching: Callable[..., Rerun],
    tell: Progress,
) -> None:
    """Fill in `verified_fix`: the first switch under which whole steps show no differing op."""
    for name in SWITCHES:
        tried = [fix for site in record.sites for fix in site.fixes if fix.name == name]
        if not all(fix.verified for fix in tried):
            continue
        with under_fix(name):
            try:
                watched = _watched(
                    factory, seed, record.steps, watching, tell, f"steps under {name}"
                )
            except RunFailedError as error:
                record.caveats.append(f"under {name} the steps cannot be run: {error}")
                continue
        if not watched.record(fixes=False).sites:
            record.verified_fix = name
            return
