"""The whole look at one workload: rerun, twin, the twin again under the verified fix, cost."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nondet_probe.env import snapshot
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.cost import cost
from nondet_probe.probe.rerun import rerun
from nondet_probe.probe.twin import twin
from nondet_probe.records import RunRecord
from nondet_probe.workload import WorkloadFactory

__all__ = ["Progress", "checkup", "new_record", "part"]

Progress = Callable[[str, int, int], None]


def checkup(
    factory: WorkloadFactory,
    *,
    target: str = "",
    seed: int = 0,
    k: int | None = None,
    rerun_steps: int = 2,
    twin_steps: int = 100,
    cost_steps: int = 12,
    progress: Progress | None = None,
) -> RunRecord:
    """Run all parts on `factory` and return their records as one.

    When the control of the twin leaves the run and rerun verified a fix, the twin is repeated under
    that fix. Raises RunFailedError with the RunRecord so far as its `partial` when the workload
    fails in any part, and UsageError on bad arguments.
    """
    name = target or f"{factory.__module__}:{factory.__qualname__}"
    record = new_record("checkup", name, seed)
    with part(record, "rerun"):
        record.rerun = rerun(factory, seed=seed, steps=rerun_steps, k=k, progress=progress)
    with part(record, "twin"):
        record.twin = twin(factory, seed=seed, steps=twin_steps, progress=progress)
    fix = record.rerun.verified_fix
    if not record.twin.control_identical and fix is not None:
        with part(record, "twin_fixed"):
            record.twin_fixed = twin(
                factory, seed=seed, steps=twin_steps, under=fix, progress=progress
            )
    with part(record, "cost"):
        record.cost = cost(factory, seed=seed, steps=cost_steps, progress=progress)
    return record


def new_record(command: str, target: str, seed: int) -> RunRecord:
    """An empty record of this moment on this machine."""
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return RunRecord(
        command=command, target=target, seed=seed, created=created, environment=snapshot()
    )


def _fail(record: RunRecord, failure: str, step: int | None) -> None:
    record.status, record.failure, record.failed_step = "failed", failure, step


@contextmanager
def part(record: RunRecord, name: str) -> Iterator[None]:
    """Time one part of `record`; when the workload fails in it, keep what it had found.

    A RunFailedError goes on with `record`, marked failed, as its `partial`. Ctrl-C becomes one, and
    so does a UsageError once an earlier part has found something.
    """
    start = time.perf_counter()
    try:
        yield
    except RunFailedError as error:
        found: Any = error.partial
        if found is not None:
            setattr(record, name, found)
        _fail(record, f"{name}: {error}", error.step)
        error.partial = record
        raise
    except UsageError as error:
        # Before anything was found it is the request that is wrong; after, what was found is kept.
        if not record.seconds:
            raise
        _fail(record, f"{name}: {error}", None)
        raise RunFailedError(record.failure or "", step=None, partial=record) from error
    except KeyboardInterrupt as stop:
        _fail(record, f"{name}: interrupted", None)
        raise RunFailedError(f"{name}: interrupted", step=None, partial=record) from stop
    finally:
        record.seconds[name] = time.perf_counter() - start
