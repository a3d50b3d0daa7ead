"""The shape of a ladder, the pairs of runs by which `bisect` came to its answer, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from nondet_probe.records.codec import encode
from nondet_probe.records.files import write_whole

__all__ = ["LADDER_FILE", "SHOWED", "Ladder", "Rung", "save_ladder"]

FORMAT = "nondet_probe.ladder"
VERSION = 1
LADDER_FILE = "ladder.json"

SHOWED = (
    "agree",  # nothing that was recorded differs
    "outside",  # it differs, but what differs first may come from where it was not recorded
    "inside",  # it differs, and that begins in what was recorded
)
"""What a pair of runs showed."""


@dataclass
class Rung:
    """A pair of runs of the script, compared with each other and with no others.

    level, steps, names: as recorded, of which None is all (`TraceMeta`). folder: holds the traces
    of both runs, `a` and `b`, and what they printed. showed: of SHOWED. compared: pairs of records.
    step, phase, kind, op, module: of the first difference (`TraceDifference`), None where the runs
    agree.
    """

    level: str
    steps: tuple[int, int] | None
    names: str | None
    folder: str
    showed: str
    compared: int
    step: int | None = None
    phase: str | None = None
    kind: str | None = None
    op: str | None = None
    module: str | None = None


@dataclass
class Ladder:
    """command: as typed, script first. created: UTC, ISO 8601. variables_b: set for the second run
    of each pair alone; the value is None where it is not one that may be stored. status: "running",
    "complete", "failed" (failure says why) or "interrupted". rungs: in the order in which they ran.
    answer: folder of the rung that the answer is of. cause: folder with the tensors of the op that
    was executed again."""

    command: list[str]
    created: str
    variables_b: dict[str, str | None] = field(default_factory=dict)
    status: str = "running"
    failure: str | None = None
    rungs: list[Rung] = field(default_factory=list)
    answer: str | None = None
    cause: str | None = None


def save_ladder(ladder: Ladder, directory: Path) -> None:
    """Write its file into `directory`; replaces an older one there at once."""
    document = {"format": FORMAT, "version": VERSION, "ladder": encode(ladder)}
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_whole(directory / LADDER_FILE, text.encode())
