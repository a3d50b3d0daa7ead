"""Run a recorded command again: a control without a fault, and twins with one changed bit each.

    RUN-one-bit/one-bit.json        of which recording they are
    RUN-one-bit/control             a trace with sketches; control.log: what the script printed
    RUN-one-bit/step-12/twin-0      the same with a fault, changed at step 12

A trace lies at its place once it is whole; so what is there is taken as it is, by a later call too.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from nondet_probe.cli.pairs import finished, tail
from nondet_probe.cli.replay import environment_of
from nondet_probe.cli.waiting import Waiting
from nondet_probe.errors import RecordError, RunFailedError, UsageError
from nondet_probe.probe.recorder.script import words_of
from nondet_probe.records.fault import Fault
from nondet_probe.records.files import sha256_of, write_whole
from nondet_probe.records.trace import TraceMeta
from nondet_probe.records.trace_reader import open_sketches
from nondet_probe.report.spell import one_line, seconds

__all__ = ["SEED", "Twins", "check_command", "fault_of"]

SEED = 0
"""Of the draw of the elements."""

FORMAT = "nondet_probe.one_bit"
VERSION = 1
_FILE = "one-bit.json"
_UNFINISHED = ".unfinished"


def check_command(run: Path, meta: TraceMeta) -> None:
    """UsageError where the command of the trace in `run` cannot be run again."""
    if meta.command is None:
        raise UsageError(
            f"{run} was recorded from code, so there is no command that could be run again for "
            "twins: record a script, with nondet-probe record --sketch -- script.py"
        )
    if meta.injected is not None:
        raise UsageError(
            f"{run} had a fault injected, and its twins would not: name the plain run first"
        )
    if meta.world != 1:
        raise UsageError(f"{run} is of {meta.world} processes: only a run of one is run again")
    script = meta.command[0]
    if script != "-m" and not Path(script).is_file():
        raise UsageError(
            f"{run} was recorded of {script}, and there is no such script from here, so no twins "
            "can be run: go to the folder where it was recorded, or put the script back"
        )


def fault_of(number: int, step: int) -> Fault:
    """The fault of one twin: the lowest bit of an element, drawn among all weights."""
    return Fault("weight", seed=SEED, number=number, change="bit", bit=0, step=step)


class Twins:
    """The runs of the command that the trace in `run` is of, in a folder beside it.

    meta: of that trace, after `check_command`. folder: where they are. made, reused: how many were
    run by this object and found. To be used within `claimed`, and one at a time: UsageError where
    another process works in the folder, or it holds the twins of another recording or script.
    """

    def __init__(self, run: Path, meta: TraceMeta) -> None:
        assert meta.command is not None, "check_command"
        self._meta = meta
        self._run = run
        self._module = meta.command[0] == "-m"
        self._target = meta.command[self._module :]
        whole = Path(os.path.abspath(run))
        self.folder = run.parent / f"{whole.name}-one-bit" if run.name else Path(f"{whole}-one-bit")
        self.made = 0
        self.reused = 0

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """The folder is there, and of no other process."""
        try:
            self.folder.mkdir(exist_ok=True)
            lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be made: {error.strerror}") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"another nondet-probe runs twins in {self.folder}: wait for its end"
                ) from None
            self._check_identity()
            yield
        finally:
            os.close(lock)

    def control(self) -> Path:
        """The folder of its trace, run now or before. Raises RunFailedError where the command ends
        in another way than the run did."""
        return self._there("control", None)

    def twin(self, number: int, step: int) -> Path:
        """The same of a twin. A script that fails after its bit was changed is a result; raises
        RunFailedError where none could be changed, or the process was killed."""
        (self.folder / f"step-{step}").mkdir(exist_ok=True)
        return self._there(f"step-{step}/twin-{number}", fault_of(number, step))

    def _check_identity(self) -> None:
        path = self.folder / _FILE
        meta = self._meta
        mine: dict[str, Any] = {
            "command": meta.command,
            "recorded": meta.created,
            "script_sha256": None if self._module else sha256_of(Path(self._target[0])),
            "names": meta.names,
            "steps": list(meta.steps) if meta.steps is not None else None,
        }
        if not path.exists():
            document = {"format": FORMAT, "version": VERSION, "of": mine}
            write_whole(path, (json.dumps(document, indent=1) + "\n").encode())
            return
        try:
            found = json.loads(path.read_bytes())
            theirs: dict[str, Any] = found["of"] if found["version"] == VERSION else {}
            changed = [name for name in mine if theirs[name] != mine[name]]
        except (OSError, ValueError, LookupError, TypeError):
            changed = ["format"]
        if changed:
            raise UsageError(
                f"{self.folder} holds twins of another recording or script than {self._run} "
                f"({', '.join(changed)} differ): move that folder away, and they are run anew"
            )

    def _there(self, name: str, fault: Fault | None) -> Path:
        out = self.folder / name
        if out.is_dir():
            self.reused += 1
            return out
        part = out.with_name(out.name + _UNFINISHED)
        if (
            part.exists()
        ):  # of a call that was interrupted: a training is not taken up in its middle
            shutil.rmtree(part)
        part.mkdir()
        log = out.with_name(out.name + ".log")
        began = time.monotonic()
        with Waiting(f"running {name}"), log.open("wb") as printed:
            command = words_of(
                self._target,
                part,
                module=self._module,
                level="step",
                outputs_only=False,
                names=self._meta.names,
                steps=self._meta.steps,
                sketch=True,
                inject=fault,
            )
            code = finished(command, printed.fileno(), environment_of(self._meta))
        self._check(name, part, log, code, fault)
        part.rename(out)
        self.made += 1
        typer.echo(f"nondet-probe: {name} took {seconds(time.monotonic() - began)}", err=True)
        return out

    def _check(self, name: str, part: Path, log: Path, code: int, fault: Fault | None) -> None:
        """Whether that run ended as it may."""
        try:
            with open_sketches(part) as found:
                meta = found.meta
                steps = found.steps
        except RecordError as error:
            raise self._failed(name, log, code, f"it left no trace: {error}") from error
        if fault is None:
            if code not in (0, self._meta.exit_code):
                raise self._failed(name, log, code, "the run itself did not")
        elif meta.injected is None or meta.injected.change is None:
            raise self._failed(name, log, code, "nothing was changed")
        elif meta.status not in ("complete", "failed"):
            raise self._failed(name, log, code, "its trace was not closed")
        if not steps:
            raise self._failed(name, log, code, "it left no sketch")

    def _failed(self, name: str, log: Path, code: int, why: str) -> RunFailedError:
        how = f"was killed by signal {-code}" if code < 0 else f"left with exit code {code}"
        return RunFailedError(
            f"the script {how} in {name}: {one_line(why)}. What it printed is in {log}, which ends"
            f"\n{tail(log)}",
            step=None,
        )
