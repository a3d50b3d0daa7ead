"""Is it safe not to fill new memory? Train a little with three contents of it, and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from nondet_probe.env.host_memory import PATTERNS, filled_allocations
from nondet_probe.env.rng import RngState
from nondet_probe.env.switches import deterministic_algorithms
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.drive import PlainRun, plain_run
from nondet_probe.probe.state import first_difference, leaves
from nondet_probe.workload import WorkloadFactory

__all__ = ["CONTENTS", "FillVerdict", "fill_needed", "judge", "with_content"]

CONTENTS = (*PATTERNS, None)
"""What new memory is to hold: a byte, or None for torch's own fill."""

Run = TypeVar("Run")


class FillVerdict(NamedTuple):
    """needed: whether the bits depend on what new memory holds, None where that is not known; why:
    a sentence without a full stop."""

    needed: bool | None
    why: str


@contextmanager
def with_content(content: int | None) -> Iterator[bool]:
    """Deterministic mode, and new memory that holds `content`. Yields whether it does."""
    if content is None:
        with deterministic_algorithms(True, fill=True):
            yield True
        return
    with deterministic_algorithms(True, fill=False), filled_allocations(content) as filled:
        yield filled


def judge(
    run: Callable[[int | None], Run],
    compare: Callable[[Run, Run], str | None],
    controlled: Callable[[Run], bool],
) -> FillVerdict:
    """run: the training with that content of new memory; compare: the name of the first thing that
    two runs ended with differently; controlled: whether all its memory held the content.

    Raises what `run` raises.
    """
    runs = [run(content) for content in CONTENTS]
    found = next((name for other in runs[1:] if (name := compare(runs[0], other))), None)
    if found is None:
        if all(map(controlled, runs[:-1])):
            return FillVerdict(False, "with three contents of new memory the bits were the same")
        return FillVerdict(
            None,
            "with torch's fill and without it the bits were the same, but what else new memory "
            "held could not be controlled (it can be on the CPU, with glibc)",
        )
    if compare(runs[0], run(CONTENTS[0])) is not None:
        return FillVerdict(None, "the steps do not repeat themselves in deterministic mode")
    return FillVerdict(True, f"the bits depend on what new memory holds (first: {found})")


class _Run(NamedTuple):
    """done: None where the training failed, with the reason in `failure`."""

    done: PlainRun | None
    end: RngState
    controlled: bool
    failure: str = ""


def fill_needed(factory: WorkloadFactory, seed: int, steps: int) -> FillVerdict:
    """Whether `steps` steps of the workload read memory that nobody wrote. Draws from the global
    random streams."""

    def run(content: int | None) -> _Run:
        with with_content(content) as filled:
            try:
                done = plain_run(factory, seed, steps)
            except RunFailedError as error:
                # With another content it may not fail: torch fills with NaN.
                return _Run(None, RngState.capture(), filled, str(error))
        tensors = [value for _, value in leaves(done.workload) if hasattr(value, "is_cpu")]
        return _Run(done, RngState.capture(), filled and all(x.is_cpu for x in tensors))

    failures: list[str] = []

    def compare(one: _Run, other: _Run) -> str | None:
        failures.extend(run.failure for run in (one, other) if run.done is None)
        return _difference(one, other)

    verdict = judge(run, compare, lambda one: one.controlled)
    if verdict.needed is not True and failures:
        return FillVerdict(None, f"not tested: {failures[0]}")
    return verdict


def _difference(one: _Run, other: _Run) -> str | None:
    if one.done is None or other.done is None:
        return None if one.failure == other.failure else "whether it fails"
    losses = [[loss.hex() for loss in done.losses] for done in (one.done, other.done)]
    if losses[0] != losses[1]:
        return "the loss"
    if not one.end.same_as(other.end):
        return "the random streams"
    with suppress(UsageError):
        return first_difference(one.done.workload, other.done.workload)
    return "a state that cannot be compared bit by bit"
