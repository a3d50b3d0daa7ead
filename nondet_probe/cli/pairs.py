"""Two runs of a script, one after the other, each in a fresh process that records itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from nondet_probe.cli.waiting import Waiting
from nondet_probe.errors import RecordError, RunFailedError
from nondet_probe.probe.ladder import Asked, Seen, seen
from nondet_probe.probe.recorder.script import words_of
from nondet_probe.records.trace import LEVELS
from nondet_probe.report.spell import printable

__all__ = ["Pairs", "finished", "tail"]

_PATIENCE = 10.0
"""Seconds that a script has to end after an interrupt, before it is killed."""

_SHOWN = 2000
"""Of what a script printed before it failed, the last so many bytes."""


class Pairs:
    """Call it with what to record; each pair has a new folder below `directory`: the traces `a` and
    `b`, and what the runs printed, `a.log` and `b.log`.

    command: a script, or with `module` a module's name, and its arguments; it reads nothing from
    stdin, which both runs could not have. variables_b: set for the second run alone. Raises
    RunFailedError where a run fails, or leaves no trace that can be read.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        module: bool,
        variables_b: Mapping[str, str],
    ) -> None:
        self._command = command
        self._directory = directory
        self._module = module
        self._variables = {"a": {}, "b": variables_b}
        self._made = 0

    def __call__(self, asked: Asked) -> Seen:
        self._made += 1
        folder = self._directory / f"{self._made}-{asked.level}"
        folder.mkdir()
        rung = f"rung {LEVELS.index(asked.level) + 1}, level {asked.level}"
        for name in ("a", "b"):
            with Waiting(f"{rung}: run {name}"):
                self._run(asked, folder, name)
        try:
            with Waiting(f"{rung}: comparing"):
                return seen(folder)
        except RecordError as error:
            raise RunFailedError(f"a run left no trace to compare: {error}", step=None) from error

    def _run(self, asked: Asked, folder: Path, name: str) -> None:
        out, log = folder / name, folder / f"{name}.log"
        out.mkdir()
        command = words_of(
            self._command,
            out,
            module=self._module,
            level=asked.level,
            outputs_only=False,
            names=asked.names,
            steps=asked.steps,
        )
        with log.open("xb") as printed:
            code = finished(command, printed.fileno(), {**os.environ, **self._variables[name]})
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
            raise RunFailedError(
                f"the script {how} in run {name} of {folder.name}; what it printed is in {log}, "
                f"which ends\n{tail(log)}",
                step=None,
            )


def finished(command: Sequence[str], log: int, environment: Mapping[str, str]) -> int:
    """The exit code of a process that runs this to its end; whatever ends the waiting ends it."""
    with _endings_raise():
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # A group of its own, so that Ctrl-C reaches it once, with all that it has started.
            process_group=0,
        )
        try:
            return child.wait()
        except BaseException:
            _stop(child)
            raise


def _stop(child: subprocess.Popen[bytes]) -> None:
    """By an interrupt, upon which its trace is closed; if that does not help, at once."""
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@contextlib.contextmanager
def _endings_raise() -> Iterator[None]:
    """Inside the block, a closed terminal and a request to end raise SystemExit: nobody else tells
    a process of another group."""
    if threading.current_thread() is not threading.main_thread():  # signals never come here
        yield
        return

    def leave(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tail(log: Path) -> str:
    """The end of what was printed, as text that can be shown."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _SHOWN))
        return printable(file.read().decode("utf-8", "replace")).strip()
