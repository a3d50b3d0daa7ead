"""Watch a user's script in a fresh process, which `python -m nondet_probe.cli.scripts` is.

The parent hands over what to do as JSON on the command line; the child writes what it found as JSON
to a file, once it has stopped the script or the script has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nondet_probe.cli.subject import Subject
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.records import AuditRecord, RerunRecord
from nondet_probe.records.codec import decode, encode

__all__ = ["audit_script", "rerun_script"]

Record = TypeVar("Record", RerunRecord, AuditRecord)


def rerun_script(subject: Subject, **options: Any) -> RerunRecord:
    """Run the script and execute every op again until its optimizer has stepped `steps` times; then
    it is stopped.

    options: steps, k, memory, sweep, and threads, set for torch before the script begins (None
    leaves them). Everything from its first line on is watched, so the building of the model too.
    The script runs once: nothing is run again under a fix. Raises RunFailedError, with the record
    so far as its `partial`, when the script fails before that.
    """
    return _found("rerun", RerunRecord, subject, options)


def audit_script(subject: Subject, **options: Any) -> AuditRecord:
    """As `rerun_script`, for `nondet_probe.audit`; no `sweep`."""
    return _found("audit", AuditRecord, subject, options)


def _found(job: str, kind: type[Record], subject: Subject, options: dict[str, Any]) -> Record:
    if options["steps"] < 1:
        raise UsageError(f"steps={options['steps']}: at least 1 training step is needed")
    found = _in_fresh_process({**options, "job": job, "module": subject.module}, subject.words)
    record: Record = decode(kind, found["record"])
    if found["failure"] is not None:
        raise RunFailedError(found["failure"], step=record.steps, partial=record)
    return record


def _in_fresh_process(options: dict[str, Any], target: tuple[str, ...]) -> dict[str, Any]:
    """What the child wrote; RunFailedError where it ended before it could."""
    with tempfile.TemporaryDirectory(prefix="nondet-probe-") as folder:
        result = Path(folder) / "found.json"
        given = json.dumps({**options, "result": str(result)})
        process = subprocess.Popen([sys.executable, "-m", __name__, given, *target])
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # the child got it too, and writes down what it has
        if not result.exists():
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise RunFailedError(
                f"the script's process ended at once {how}, before anything could be written down",
                step=None,
            )
        found: dict[str, Any] = json.loads(result.read_bytes())
        return found


def _main() -> None:
    import torch

    from nondet_probe.probe.script_steps import end_process

    options, target = json.loads(sys.argv[1]), sys.argv[2:]
    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    failure, record = _JOBS[options["job"]](options, target)
    result = Path(options["result"])
    beside = result.with_suffix(".part")
    beside.write_text(json.dumps({"failure": failure, "record": encode(record)}), encoding="utf-8")
    os.replace(beside, result)
    end_process()


def _rerun(options: dict[str, Any], target: list[str]) -> tuple[str | None, RerunRecord]:
    from nondet_probe.probe.census import Census, thread_counts
    from nondet_probe.probe.script_steps import run_steps
    from nondet_probe.probe.watch import Rerun

    census = Census(thread_counts()) if options["sweep"] else None
    watch = Rerun(options["k"], memory=options["memory"], census=census)
    with watch:
        ending = run_steps(target, module=options["module"], steps=options["steps"])
    record = watch.found(fixes=ending.failure is None)
    record.of_script = True
    record.steps = ending.steps
    record.classes = census.rows() if census is not None else []
    record.caveats += watch.mode_dependent() + ending.caveats(options["steps"])
    return ending.failure, record


def _audit(options: dict[str, Any], target: list[str]) -> tuple[str | None, AuditRecord]:
    from nondet_probe.cli.measure import switches
    from nondet_probe.env.imports import at_first_import
    from nondet_probe.probe.audit import Audit
    from nondet_probe.probe.script_steps import run_steps

    looking = Audit(options["k"], options["memory"], switches())
    with at_first_import("torch", looking.requests.torch_imported), looking.watch:
        ending = run_steps(target, module=options["module"], steps=options["steps"])
    record = looking.record(ending.steps)
    record.caveats += ending.caveats(options["steps"])
    return ending.failure, record


_JOBS: dict[str, Callable[[dict[str, Any], list[str]], tuple[str | None, Any]]] = {
    "rerun": _rerun,
    "audit": _audit,
}


if __name__ == "__main__":
    _main()
