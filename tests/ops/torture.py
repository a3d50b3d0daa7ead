"""Every op and variant on every family of vectors, size, alignment, stride, ISA and thread count.

The grid has tens of millions of cases. `test_torture.py` takes a covering sample of it: rows in
which every two values of two factors meet at least once. The whole of it, in a random order and for
as long as one likes, with a line in torture.csv afterwards:

    python tests/ops/torture.py --minutes 30        # make torture
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from allpairspy import AllPairs
from generators import FAMILIES, bits_of, family
from subjects import SUBJECTS
from torch import Tensor

from nondet_probe import _C
from nondet_probe.ops.rational import FORMATS

__all__ = ["FACTORS", "Case", "covering", "failure", "grid_size", "whole_grid"]

RECORD = Path(__file__).parent / "torture.csv"

SIZES = (0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 1000, 4095, 4096, 4097, 8191, 8192, 8193, 10**5, 10**6)


class Case(NamedTuple):
    """One cell of the grid. offset and stride: in elements."""

    subject: str
    family: str
    size: int
    dtype: torch.dtype
    offset: int
    stride: int
    isa: str
    threads: int


FACTORS: dict[str, Sequence[Any]] = {
    "subject": list(SUBJECTS),
    "family": list(FAMILIES),
    "size": SIZES,
    "dtype": list(FORMATS),
    "offset": range(8),
    "stride": (1, 2, 3),
    "isa": _C.available_isas(),
    "threads": range(1, 9),
}


def covering() -> list[Case]:
    """Cases in which each pair of values of two factors is met at least once."""
    return [Case(*row) for row in AllPairs(list(FACTORS.values()))]


def grid_size() -> int:
    return math.prod(len(values) for values in FACTORS.values())


def whole_grid(seed: int) -> Iterator[Case]:
    """All cases, each once, in an order of `seed`; neighbours share their vector, which is slow to
    make and to sum exactly."""
    vectors = list(itertools.product(*list(FACTORS.values())[1:4]))
    rng = np.random.default_rng(seed)
    rest = list(itertools.product(*list(FACTORS.values())[4:]))
    for place in rng.permutation(len(vectors)):
        for subject in FACTORS["subject"]:
            for other in rng.permutation(len(rest)):
                yield Case(subject, *vectors[place], *rest[other])


@cache
def _members(name: str, dtype: torch.dtype) -> Tensor:
    # A family may have nothing for a format as narrow as float16.
    return torch.cat(family(name, dtype) or family("plain", dtype))


@cache
def _vector(name: str, size: int, dtype: torch.dtype) -> Tensor:
    """`size` elements of a family, from a place that depends on the size, over and over."""
    members = _members(name, dtype)
    start = size * 7919 % members.numel()
    repeats = (start + size) // members.numel() + 1
    return members.repeat(repeats)[start : start + size].clone()


def _laid_out(x: Tensor, offset: int, stride: int) -> Tensor:
    """The same elements `stride` apart, the first `offset` elements into the memory."""
    home = torch.full((offset + x.numel() * stride + 1,), 3.0, dtype=x.dtype)
    view = home[offset : offset + x.numel() * stride : stride]
    view.copy_(x)
    return view


@cache
def _expected(subject: str, name: str, size: int, dtype: torch.dtype) -> tuple[str, list[int]]:
    x = _vector(name, size, dtype)
    exactly = SUBJECTS[subject].exactly
    if exactly is not None and size <= SUBJECTS[subject].most:
        return "the exact result", bits_of(exactly(x))
    with _isa("portable"):
        return "one thread, portable", bits_of(SUBJECTS[subject].call(x, 1))


class _isa:  # noqa: N801  a context manager, named like a function
    """NONDET_PROBE_ISA for the time being."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.before = os.environ.get("NONDET_PROBE_ISA")
        os.environ["NONDET_PROBE_ISA"] = self.name

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            del os.environ["NONDET_PROBE_ISA"]
        else:
            os.environ["NONDET_PROBE_ISA"] = self.before


def failure(case: Case, call: Callable[[Tensor, int], Tensor] | None = None) -> str | None:
    """What is wrong with this case; None when all bits are right."""
    what, expected = _expected(case.subject, case.family, case.size, case.dtype)
    x = _laid_out(_vector(case.family, case.size, case.dtype), case.offset, case.stride)
    with _isa(case.isa):
        found = bits_of((call or SUBJECTS[case.subject].call)(x, case.threads))
    if found == expected:
        return None
    wrong = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    first = wrong[0]
    return (
        f"{case}: {len(wrong)} of {len(found)} elements differ from {what}, the first at {first}: "
        f"{found[first]:#x}, expected {expected[first]:#x}"
    )


def _forget_vectors() -> None:
    _vector.cache_clear()
    _expected.cache_clear()


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the grid; append a line to torture.csv.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start, done, failures = time.perf_counter(), 0, 0
    vector: tuple[Any, ...] = ()
    for case in whole_grid(given.seed):
        if case[1:4] != vector:
            vector = case[1:4]
            _forget_vectors()
            print(f"\r{done} cases, {failures} failed, at {vector}", end="", file=sys.stderr)
        if time.perf_counter() - start > 60 * given.minutes:
            break
        told = failure(case)
        done += 1
        if told is not None:
            failures += 1
            print("\n" + told)
    seconds = time.perf_counter() - start
    header = ["time", "commit", "torch", "seed", "grid", "cases", "failures", "seconds"]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    row = [now, _commit(), torch.__version__, given.seed, grid_size(), done, failures]
    new = not RECORD.exists()
    with RECORD.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(header)
        writer.writerow([*row, round(seconds)])
    print(f"\n{done} of {grid_size()} cases, {failures} failed, {seconds:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
