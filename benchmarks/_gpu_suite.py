"""Which test files can run with the packages that are here, and running them, many at once.

Standard library only. A file is left out where something that it imports at its top, directly or
through other modules of this repository, is not installed: that is said, and is no failure.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _gpu_parts import FAILED, PASSED, UNFINISHED, Done, run

__all__ = [
    "Modules",
    "asks_for_a_gpu",
    "files_of_tests",
    "is_installed",
    "pytest_command",
    "run_files",
]

OWN = "nondet_probe"
_LEAST_SECONDS = 5.0
"""No file is begun with less time left."""
_NOTHING_COLLECTED = 5


class Modules:
    """Modules of a repository by the names they are imported by. roots: folders on the path."""

    def __init__(self, roots: Sequence[Path], is_installed: Callable[[str], bool]) -> None:
        self._roots = roots
        self._is_installed = is_installed
        self._looked_at: dict[Path, tuple[set[Path], set[str]]] = {}

    def missing(self, file: Path) -> frozenset[str]:
        """Packages that importing this file takes, and that are not there."""
        seen: set[Path] = set()
        lacking: set[str] = set()
        waiting = [file]
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            own, not_here = self._look_at(path)
            waiting += own
            lacking |= not_here
        return frozenset(lacking)

    def _look_at(self, path: Path) -> tuple[set[Path], set[str]]:
        """The files of this repository that a file imports, and the packages that are not there."""
        if path not in self._looked_at:
            files: set[Path] = set()
            lacking: set[str] = set()
            for name in _imported(path):
                own = set(self._own(name, path.parent))
                files |= own
                package = name.partition(".")[0]
                if not own and package != OWN and not self._is_installed(package):
                    lacking.add(package)
            self._looked_at[path] = files, lacking
        return self._looked_at[path]

    def _own(self, name: str, beside: Path) -> Iterator[Path]:
        """The file of a module of this repository, and those of the packages that hold it."""
        parts = name.split(".")
        # pytest puts the folder of each conftest.py on the path too.
        above = [folder for folder in beside.parents if (folder / "conftest.py").is_file()]
        for root in (beside, *above, *self._roots):
            for count in range(1, len(parts) + 1):
                stem = root.joinpath(*parts[:count])
                for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                    if path.is_file():
                        yield path


def _imported(file: Path) -> list[str]:
    """Names in the import statements at the top level, not those inside functions."""
    names: list[str] = []
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def files_of_tests(tests: Path) -> list[Path]:
    return sorted(tests.rglob("test_*.py"))


def asks_for_a_gpu(file: Path) -> bool:
    """Whether some of its tests have the mark, or the fixture that has it."""
    return bool(re.search(r"mark\.gpu|: Place\b", file.read_text("utf-8")))


def pytest_command(python: str, *options: str) -> list[str]:
    """pytest with the options of pyproject.toml, but for those of a plugin that is not there."""
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--require-gpu"]
    if not is_installed("pytest_benchmark"):
        command += ["-o", "addopts=--strict-markers --strict-config -ra"]
    return [*command, *options]


def run_files(
    files: Sequence[Path],
    command: Callable[[Path], Sequence[str]],
    root: Path,
    seconds: float,
    workers: int,
    told: Callable[[Path, str, Done], None],
) -> None:
    """Run every file in a process of its own, several at once; told: called with each outcome.

    What is not done when the time is up is UNFINISHED; `told` is then called for those that were
    begun alone.
    """
    ends = time.monotonic() + seconds

    def one(file: Path) -> None:
        left = ends - time.monotonic()
        if left < _LEAST_SECONDS:
            return
        # Files run beside each other: one must not take the threads of all.
        done = run(command(file), left, root, {"OMP_NUM_THREADS": str(_threads(workers))})
        told(file, _outcome(done), done)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, files))


def _outcome(done: Done) -> str:
    if done.code is None:
        return UNFINISHED
    return PASSED if done.code in (0, _NOTHING_COLLECTED) else FAILED


def _threads(workers: int) -> int:
    return max(2, (os.cpu_count() or 1) // workers)
