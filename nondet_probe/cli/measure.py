"""The commands that measure a workload or a training script: rerun."""

from __future__ import annotations

from pathlib import Path

from nondet_probe.cli.session import Session
from nondet_probe.cli.subject import Subject
from nondet_probe.errors import UsageError
from nondet_probe.probe.mode import MEMORY

__all__ = ["rerun"]


def rerun(
    subject: Subject,
    seed: int,
    steps: int,
    k: int | None,
    memory: int | None,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    budget = _bytes(memory)
    session = Session("rerun", subject.name, seed, threads, out, as_json)

    def body() -> None:
        from nondet_probe.probe.rerun import rerun as of_workload
        from nondet_probe.probe.scripts import rerun_script

        with session.part("rerun"):
            if subject.is_script:
                session.record.rerun = rerun_script(
                    subject.words,
                    module=subject.module,
                    steps=steps,
                    k=k,
                    memory=budget,
                    threads=threads,
                )
            else:
                session.record.rerun = of_workload(
                    session.factory(),
                    seed=seed,
                    steps=steps,
                    k=k,
                    memory=budget,
                    progress=session.progress,
                )

    session.run(body)


def _bytes(memory: int | None) -> int:
    if memory is None:
        return MEMORY
    if memory < 1:
        raise UsageError(f"--memory {memory}: at least 1 MiB")
    return memory << 20
