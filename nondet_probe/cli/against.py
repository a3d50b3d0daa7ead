"""`nondet-probe record --against RUN`: wait for the recorded script, then answer as `diff` does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer

from nondet_probe.cli import exit_codes
from nondet_probe.cli.diff import show, told_of
from nondet_probe.errors import RecordError
from nondet_probe.probe.recorder.live import Outcome, compared
from nondet_probe.probe.recorder.script import OUTCOME_FILE, words_of
from nondet_probe.records.codec import decode
from nondet_probe.records.trace_reader import Trace, open_trace

__all__ = ["record_against"]

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PATIENCE = 1.0
"""Seconds until a signal is passed on to a script that goes on."""


def record_against(
    command: Sequence[str],
    out: Path,
    reference: Trace,
    *,
    html: Path | None,
    as_json: bool,
    **options: Any,
) -> NoReturn:
    """Record the script in a process of its own until it differs from the reference or ends; say
    which, and leave with the exit code.

    options: as of `words_of`. What the script prints goes to stderr if the answer is JSON. A script
    that fails by itself has its own exit code, one that a signal ended 128 and its number.
    """
    words = words_of(command, out, against=reference.directory, **options)
    code = _run(words, sys.stderr.fileno() if as_json else None)
    try:
        outcome = _outcome(out / OUTCOME_FILE)
        # A reference that is still being written has grown meanwhile.
        told = told_of(compared(open_trace(reference.directory), open_trace(out), outcome))
    except RecordError as error:
        typer.echo(f"nondet-probe: nothing could be compared: {error}", err=True)
        raise typer.Exit(code or exit_codes.USAGE) from None
    show(told, html, as_json)
    stopped = outcome.until is not None
    raise typer.Exit(told.code if stopped or not code else code)


def _run(words: list[str], stdout: int | None) -> int:
    """Its exit code. What asks this process to end does not end it, but the script."""
    with _signals_go_to(lambda number: process.send_signal(number)):
        # In this process's group: it may read from the terminal.
        process = subprocess.Popen(words, stdout=stdout)
        code = process.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_go_to(send: Callable[[int], None]) -> Iterator[None]:
    """Inside the block a signal of _ENDINGS is passed on, once, unless it is ignored already.

    It may have gone to the whole group, so that the script has it too: that of a terminal always
    does, and after any other the script is given time, for a second one may have another meaning.
    """
    timers: list[threading.Timer] = []

    def pass_on(number: int, _frame: object) -> None:
        if number == signal.SIGINT and _in_foreground():
            return
        timers.append(threading.Timer(_PATIENCE, send, [number]))
        timers[-1].start()

    before = {number: signal.getsignal(number) for number in _ENDINGS}
    # What is ignored, under nohup for one, is so in the script, which inherits that.
    before = {number: of for number, of in before.items() if of is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, of in before.items():
            signal.signal(number, of)
        for timer in timers:
            timer.cancel()
            timer.join()


def _in_foreground() -> bool:
    """Whether a terminal tells this process's group of Ctrl-C."""
    try:
        with Path("/dev/tty").open("rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:  # it has none
        return False


def _outcome(file: Path) -> Outcome:
    """What the script's process left; where it could not, it was not stopped."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return Outcome()
    found: Outcome = decode(Outcome, json.loads(text))
    return found
