"""Which steps are recorded: those asked for, until a file in the run folder says otherwise."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from nondet_probe.errors import UsageError

__all__ = ["CONTROL_FILE", "Control", "parse_steps"]

CONTROL_FILE = "control"
"""In the run folder, made by the user while the program runs: "on", "off" or "steps 120-121". It is
looked at where a step begins; what it says holds from the step that begins then."""

_RECORD = torch.profiler.ProfilerAction.RECORD
_NONE = torch.profiler.ProfilerAction.NONE

Steps = tuple[int, int]


class Control:
    """A schedule, to be asked for each step as it begins. steps: first and last, None for all.

    told: a sentence for each time that the file changed anything, or said what is not understood.
    A step on which nothing changed costs one `os.stat`.
    """

    def __init__(self, directory: Path, steps: Steps | None = None) -> None:
        self._file = directory / CONTROL_FILE
        self._on = True
        self._steps = steps
        self._seen: tuple[int, int, int] | None = None
        self.told: list[str] = []

    @property
    def records_setup(self) -> bool:
        """What comes before the first step belongs to a recording of all."""
        return self._steps is None

    def __call__(self, step: int) -> torch.profiler.ProfilerAction:
        self._look(step)
        wanted = self._steps is None or self._steps[0] <= step <= self._steps[1]
        return _RECORD if self._on and wanted else _NONE

    def _look(self, step: int) -> None:
        try:
            found = os.stat(self._file)
        except OSError:
            return
        state = found.st_mtime_ns, found.st_size, found.st_ino
        if state == self._seen:
            return
        self._seen = state
        try:
            said = self._file.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return
        if said in ("on", "off"):
            self._on, self._steps = said == "on", None
        elif said.startswith("steps "):
            try:
                self._on, self._steps = True, parse_steps(said.removeprefix("steps "))
            except UsageError as error:
                self._misunderstood(step, str(error))
                return
        else:
            self._misunderstood(step, f"{said[:40]!r}: taken are on, off and steps 120-121")
            return
        self.told.append(f"from step {step}: the file {CONTROL_FILE} said {said!r}")

    def _misunderstood(self, step: int, what: str) -> None:
        self.told.append(f"at step {step} the file {CONTROL_FILE} changed nothing: {what}")


def parse_steps(text: str) -> Steps:
    """ "120-121", or "7" for one alone, as (first, last). UsageError says what is wrong."""
    match = re.fullmatch(r"\s*(\d{1,15})(?:-(\d{1,15}))?\s*", text)
    if match is None:
        raise UsageError(f"steps {text!r}: taken are one step, such as 120, and a range, 120-121")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise UsageError(f"steps {text!r}: the last step comes before the first; {last}-{first}?")
    return first, last
