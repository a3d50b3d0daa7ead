"""Where a command's results go, and what has to be there for them."""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import itertools
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from nondet_probe.errors import UsageError

__all__ = [
    "MAX_THREADS",
    "claim_directory",
    "give_back",
    "interrupts_wait",
    "require_report_libraries",
    "stdout_to_stderr",
]

RUNS = "runs"
MAX_THREADS = 1024
"""More than any machine has; torch would try to start as many as it is told."""


def claim_directory(out: Path | None, command: str, target: str) -> Path:
    """`out`, made or found empty, or a new directory below RUNS. UsageError says why not."""
    return _default_directory(command, target) if out is None else _made(out)


def give_back(directory: Path) -> None:
    """Nothing was found, so nothing is kept: remove what was made, as far as it is empty."""
    with contextlib.suppress(OSError):
        directory.rmdir()
        if directory.parent.name == RUNS:
            directory.parent.rmdir()


@contextlib.contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C inside the block takes effect at its end: what belongs together is done whole."""
    if threading.current_thread() is not threading.main_thread():  # signals never come here
        yield
        return
    came = False

    def wait(_number: int, _frame: object) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Also for what writes to the file descriptor itself: child processes, C code."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _made(directory: Path) -> Path:
    """`directory`, made, or found empty."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise FileExistsError
    except FileExistsError:
        raise UsageError(
            f"--out {directory}: exists and is not an empty directory; nothing is ever "
            "overwritten. Name another one."
        ) from None
    except OSError as error:
        raise UsageError(f"--out {directory} cannot be made: {error.strerror}") from error
    return directory


def _default_directory(command: str, target: str) -> Path:
    """A new directory below RUNS that no other process has."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"[^A-Za-z0-9]+", "-", target).strip("-")[:80]
    for number in itertools.count(1):
        directory = Path(RUNS) / (f"{now}-{command}-{name}" + (f"-{number}" if number > 1 else ""))
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"{directory} cannot be made ({error.strerror}): name another place with --out"
            ) from error
        return directory
    raise AssertionError("the numbers do not end")


def require_report_libraries() -> None:
    """Say so before the run, not after minutes of it, when the report could not be written."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"report.html needs {' and '.join(missing)}: pip install 'nondet-probe[report]'"
        )
