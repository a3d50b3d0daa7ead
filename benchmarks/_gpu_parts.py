"""What `make gpu` is made of: commands with a time limit, and a note of what they came to.

Standard library only: this runs before anything is built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = [
    "FAILED",
    "NOT_HERE",
    "PASSED",
    "UNFINISHED",
    "Done",
    "Note",
    "Notes",
    "digest_of",
    "run",
]

PASSED, FAILED = "passed", "failed"
NOT_HERE = "not here"
"""The machine lacks what it takes, or refuses it: no failure."""
UNFINISHED = "unfinished"
"""Its time was up; calling it again goes on."""


@dataclass(frozen=True)
class Done:
    """code: None where it was ended because its time was up. output: both streams together."""

    code: int | None
    output: str
    seconds: float

    def last(self, lines: int) -> list[str]:
        return self.output.splitlines()[-lines:]


def run(
    command: Sequence[str],
    seconds: float,
    where: Path,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run a command for at most so many seconds; then it is ended with all that it started."""
    start = time.monotonic()
    process = subprocess.Popen(
        list(command),
        cwd=where,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=max(seconds, 0.1))
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        output, code = _ended(process), None
    except BaseException:
        _ended(process)
        raise
    return Done(code, output, time.monotonic() - start)


def _ended(process: subprocess.Popen[str]) -> str:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


@dataclass
class Note:
    """What a part came to. said: lines for people. items: outcomes of its pieces, which are not
    done again."""

    outcome: str
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    items: dict[str, str] = field(default_factory=dict)


class Notes:
    """By part, kept in a JSON file that each change is written to at once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.parts: dict[str, Note] = {}
        if file.exists():
            found = json.loads(file.read_text("utf-8"))
            self.parts = {name: Note(**of) for name, of in found.items()}

    def keep(self, name: str, note: Note) -> None:
        self.parts[name] = note
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(".part")
        found = {name: asdict(of) for name, of in self.parts.items()}
        part.write_text(json.dumps(found, indent=1), "utf-8")
        part.rename(self._file)

    def is_done(self, name: str) -> bool:
        """Whether there is nothing to gain from doing it again."""
        return name in self.parts and self.parts[name].outcome == PASSED


def digest_of(root: Path, folders: Sequence[str], files: Sequence[str]) -> str:
    """Of all sources: notes are of one state of them."""
    digest = hashlib.sha256()
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*"))]
    for path in [*paths, *(root / name for name in files)]:
        if path.suffix in {".py", ".pyi", ".cu", ".cpp", ".hpp", ".toml"} and path.is_file():
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]
