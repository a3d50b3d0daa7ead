"""`nondet-probe show`: list a trace, or show a run directory again."""

from __future__ import annotations

from pathlib import Path

from nondet_probe.cli.show import show_run, show_trace
from nondet_probe.cli.waiting import Waiting
from nondet_probe.errors import RecordError, UsageError
from nondet_probe.records import load_run
from nondet_probe.records.store import RECORD_FILE
from nondet_probe.records.trace import SETUP
from nondet_probe.records.trace_reader import open_trace
from nondet_probe.report.html import REPORT_FILE

__all__ = ["show"]


def show(run: Path, step: int | None, as_json: bool) -> None:
    """Run the command. Raises UsageError where `run` is neither, or has no such step."""
    try:
        if (run / RECORD_FILE).exists():
            if step is not None:
                raise UsageError(f"--step is for traces; {run} is the directory of a run")
            page = run / REPORT_FILE
            show_run(load_run(run), page if page.exists() else None, as_json)
            return
        with Waiting("reading"):
            trace = open_trace(run)
    except RecordError as error:
        raise UsageError(str(error)) from error
    steps = trace.arrays.step
    if step is not None and not (steps == step).any():
        there = steps[steps != SETUP]
        known = f"{there.min()} to {there.max()}" if len(there) else "none"
        raise UsageError(
            f"--step {step}: {run} has no record of it; it has steps {known}"
            + (f", and the setup, which is {SETUP}" if (steps == SETUP).any() else "")
        )
    show_trace(trace, step, as_json)
