"""One command on one workload: load it, show progress, keep the record, leave with a code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from nondet_probe.cli import exit_codes
from nondet_probe.cli.place import (
    MAX_THREADS,
    claim_directory,
    give_back,
    require_report_libraries,
    stdout_to_stderr,
)
from nondet_probe.cli.show import show_run
from nondet_probe.env import thread_count
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.checkup import new_record, part
from nondet_probe.records import RunRecord, save_run
from nondet_probe.report import outcome, write_report
from nondet_probe.report.html import REPORT_FILE
from nondet_probe.workload import WorkloadFactory
from nondet_probe.workloads.targets import load_target

__all__ = ["Session"]


class Session:
    """What the commands on a workload share. `run` leaves the process with the exit code."""

    def __init__(
        self,
        command: str,
        target: str,
        seed: int,
        threads: int | None,
        out: Path | None,
        as_json: bool,
    ) -> None:
        if not 0 <= seed < 2**32:
            raise UsageError(f"--seed {seed}: a seed is from 0 to 2**32 - 1")
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"--threads {threads}: at least 1 and at most {MAX_THREADS}")
        require_report_libraries()
        self.target = target
        self.threads = threads
        self.as_json = as_json
        # Made now, not when there is something to save: no other run can take it, and a place that
        # cannot be written to is noticed before minutes of work.
        self.directory = claim_directory(out, command, target)
        # Before new_record, so that the record shows the switches the run was really under.
        with thread_count(threads):
            self.record: RunRecord = new_record(command, target, seed)
        self._bars: Progress | None = None

    def factory(self) -> WorkloadFactory:
        """The user's function; its import runs user code, so it belongs into the body of `run`."""
        return load_target(self.target)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of `what` are done."""
        if self._bars is None:
            return
        for task in self._bars.tasks:
            if task.description == what:
                self._bars.update(task.id, completed=done, total=total)
                return
        self._bars.add_task(what, completed=done, total=total)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        with part(self.record, name):
            yield

    def run(self, body: Callable[[], None]) -> None:
        """Call `body` under the session's settings; write and show what it put into `record`."""
        failed: RunFailedError | None = None
        # With --json nothing but the JSON may reach stdout, whatever the user's code prints.
        quiet = stdout_to_stderr() if self.as_json else contextlib.nullcontext()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        try:
            with quiet, thread_count(self.threads), self._bars:
                body()
        except RunFailedError as error:
            failed = error
            if isinstance(error.partial, RunRecord):
                self.record = error.partial
            else:
                self.record.status, self.record.failure = "failed", str(error)
                self.record.failed_step = error.step
        except BaseException:
            give_back(self.directory)
            raise
        save_run(self.record, self.directory)
        report = self.directory / REPORT_FILE
        write_report(self.record, report)
        show_run(self.record, report, self.as_json)
        if failed is not None:
            typer.echo(f"nondet-probe: the run failed: {self.record.failure}", err=True)
            raise typer.Exit(exit_codes.FAILED)
        # What could not be checked is not clean.
        clean = outcome(self.record) in ("clean", "priced")
        raise typer.Exit(exit_codes.CLEAN if clean else exit_codes.FOUND)
