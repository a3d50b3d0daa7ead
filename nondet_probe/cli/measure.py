"""The commands that measure a workload or a training script: rerun, audit, cost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from nondet_probe.cli.script_cost import cost_script
from nondet_probe.cli.scripts import audit_script, rerun_script
from nondet_probe.cli.session import Session
from nondet_probe.cli.subject import Subject
from nondet_probe.errors import UsageError
from nondet_probe.mitigate.reproducible import reproducible
from nondet_probe.probe.audit import audit as audit_workload
from nondet_probe.probe.census import Census, thread_counts
from nondet_probe.probe.cost import cost as cost_workload
from nondet_probe.probe.mode import MEMORY
from nondet_probe.probe.rerun import rerun as rerun_workload
from nondet_probe.probe.watch import check_k
from nondet_probe.records.catalogue import check_catalogue, merge_into, rows_of

__all__ = ["audit", "cost", "rerun", "switches"]


def switches() -> dict[str, Callable[[], AbstractContextManager[object]]]:
    """What an audit tries beyond torch's own switches."""
    try:
        run = reproducible()
        with run:
            pass
    except UsageError:
        return {}  # torch without OpenMP threads
    return {"nondet_probe.reproducible": lambda: run}


def rerun(
    subject: Subject,
    seed: int,
    steps: int,
    k: int | None,
    memory: int | None,
    sweep: bool,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """See `nondet-probe rerun --help`."""
    budget = _bytes(memory)
    check_k(k)
    session = Session("rerun", subject.name, seed, threads, out, as_json)

    def body() -> None:
        with session.part("rerun"):
            if subject.is_script:
                session.record.rerun = rerun_script(
                    subject, steps=steps, k=k, memory=budget, sweep=sweep, threads=threads
                )
            else:
                session.record.rerun = rerun_workload(
                    session.factory(),
                    seed=seed,
                    steps=steps,
                    k=k,
                    memory=budget,
                    census=Census(thread_counts()) if sweep else None,
                    progress=session.progress,
                )

    session.run(body)


def audit(
    subject: Subject,
    seed: int,
    steps: int,
    k: int | None,
    memory: int | None,
    catalogue: Path | None,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """See `nondet-probe audit --help`."""
    budget = _bytes(memory)
    check_k(k)
    if catalogue is not None:
        check_catalogue(catalogue)
    session = Session("audit", subject.name, seed, threads, out, as_json)

    def body() -> None:
        with session.part("audit"):
            if subject.is_script:
                session.record.audit = audit_script(
                    subject, steps=steps, k=k, memory=budget, threads=threads
                )
            else:
                session.record.audit = audit_workload(
                    session.factory(),
                    seed=seed,
                    steps=steps,
                    k=k,
                    memory=budget,
                    switches=switches(),
                    progress=session.progress,
                )
        if catalogue is not None:
            merge_into(catalogue, rows_of(session.record.audit, session.record.environment))

    session.run(body)


def cost(
    subject: Subject,
    seed: int,
    steps: int,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """See `nondet-probe cost --help`."""
    session = Session("cost", subject.name, seed, threads, out, as_json)

    def body() -> None:
        with session.part("cost"):
            if subject.is_script:
                session.record.cost = cost_script(
                    subject, steps=steps, threads=threads, progress=session.progress
                )
            else:
                session.record.cost = cost_workload(
                    session.factory(),
                    seed=seed,
                    steps=steps,
                    further={
                        name.rpartition(".")[2]: context for name, context in switches().items()
                    },
                    progress=session.progress,
                )

    session.run(body)


def _bytes(memory: int | None) -> int:
    if memory is None:
        return MEMORY
    if memory < 1:
        raise UsageError(f"--memory {memory}: at least 1 MiB")
    return memory << 20
