"""The running Python's own standard library as a classification data set, without a download.

A snippet is 516 bytes of a package's source; it is read as 1,024 hashed character n-grams: the
3-grams and the 5-grams that begin at its first 512 bytes (bytes, not code points: nearly all of the
standard library is ASCII).
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nondet_probe.errors import UsageError

__all__ = ["LOOKUPS", "ROWS", "Snippets", "hash_ngrams", "load_snippets"]

ROWS = 8192  # of the table; row numbers fit int16
STARTS = 512
SIZES = (3, 5)
LOOKUPS = STARTS * len(SIZES)
SNIPPET = STARTS + max(SIZES) - 1  # bytes

# Few enough that reading and hashing them all takes a fraction of a second.
MOST = 300  # snippets per package, spread over its sources
FEWEST = 32  # a package with fewer is left out
TESTS = frozenset({"idle_test", "test", "tests"})  # many distributions leave these folders out


@dataclass(frozen=True)
class Snippets:
    """packages: names, the class is the position. rows: int16 [n, LOOKUPS]. labels: int64 [n]."""

    packages: tuple[str, ...]
    rows: torch.Tensor
    labels: torch.Tensor


def hash_ngrams(text: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.int16]:
    """Table rows of the `size`-grams of snippets, uint8 [n, SNIPPET]; int16 [n, STARTS].

    FNV-1a in 32 bits over the bytes of each n-gram, its upper half folded onto the lower one by
    xor, modulo ROWS. (Python's own `hash()` of a string is another one in every process.)
    """
    state = np.full((len(text), STARTS), 0x811C9DC5, np.uint32)
    for offset in range(size):
        state ^= text[:, offset : offset + STARTS]
        state *= np.uint32(0x01000193)
    return ((state ^ state >> np.uint32(16)) % np.uint32(ROWS)).astype(np.int16)


def _sources(package: Path) -> Iterator[bytes]:
    """The package's Python files in the order of their paths, those that are not UTF-8 left out."""
    for path in sorted(package.rglob("*.py")):
        if TESTS.isdisjoint(path.relative_to(package).parts):
            source = path.read_bytes()
            try:
                source.decode()
            except UnicodeDecodeError:
                continue
            yield source


def _cut(package: Path) -> npt.NDArray[np.uint8]:
    """At most MOST whole snippets of a package, evenly spread over them all: uint8 [n, SNIPPET]."""
    pieces = [
        np.frombuffer(source, np.uint8, len(source) // SNIPPET * SNIPPET).reshape(-1, SNIPPET)
        for source in _sources(package)
    ]
    found = np.concatenate([np.empty((0, SNIPPET), np.uint8), *pieces])
    return found[np.linspace(0, len(found) - 1, min(MOST, len(found)), dtype=np.int64)]


@cache
def load_snippets(library: Path | None = None) -> Snippets:
    """Snippets of every package of the standard library that is there, packages by name.

    library: where the sources lie; by default where this Python has them. Raises `UsageError` when
    fewer than two packages have enough source there (a Python installed without its sources).
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    cut = {
        name: _cut(library / name)
        for name in sorted(sys.stdlib_module_names)
        if (library / name / "__init__.py").is_file()
    }
    cut = {name: text for name, text in cut.items() if len(text) >= FEWEST}
    if len(cut) < 2:
        raise UsageError(
            f"snippets-hashed needs the sources of Python's standard library; {library} has "
            f"{len(cut)} packages with {FEWEST} snippets of {SNIPPET} bytes. "
            "Use a Python that is installed with its .py files."
        )
    text = np.concatenate(list(cut.values()))
    rows = np.concatenate([hash_ngrams(text, size) for size in SIZES], axis=1)
    labels = np.repeat(np.arange(len(cut)), [len(part) for part in cut.values()])
    return Snippets(tuple(cut), torch.from_numpy(rows), torch.from_numpy(labels))
