"""`nondet-probe record --against RUN`: wait for the recorded script, then answer as `diff` does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
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
    """Its exit code. Ctrl-C reaches the script by itself, and SIGTERM through us."""
    sys.stdout.flush()
    process = subprocess.Popen(words, stdout=stdout)
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # the trace is closed first
    finally:
        signal.signal(signal.SIGTERM, before)
    return code if code >= 0 else 128 - code


def _outcome(file: Path) -> Outcome:
    """What the script's process left; where it could not, it was not stopped."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return Outcome()
    found: Outcome = decode(Outcome, json.loads(text))
    return found
