"""How the figures are measured and kept.

What is compared runs interleaved in one process, one call of each in turn, so that whatever slows
the machine down slows all of them; a ratio is the median of the ratios within the rounds. Rows are
appended to `benchmarks/results/<stem>.csv` in long format, one figure a row, with the machine, the
versions and the commit that gave it.
"""

from __future__ import annotations

import csv
import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from nondet_probe.env.snapshot import snapshot

__all__ = ["Row", "Spread", "interleave", "keep_memory", "rates", "ratios", "write_rows"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of one figure over the rounds."""

    median: float
    q25: float
    q75: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            raise ValueError(f"at least 2 rounds are needed, got {len(values)}")
        q25, median, q75 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q25, q75, len(values))


@dataclass(frozen=True)
class Row:
    """One figure. n: elements of the input; metric: "rate" or "ratio to <provider>"."""

    op: str
    provider: str
    dtype: str
    n: int
    threads: int
    metric: str
    unit: str
    spread: Spread


def keep_memory() -> None:
    """Let glibc's malloc keep what is freed, in this process (mallopt(3)).

    Left alone it hands the top of the heap back to the system and takes it again, or not, as the
    heap happens to lie: 50 to 6,000 page faults in one training step of digits-cnn, up to 20 of
    45 ms, for the plain loop as for a probe. With this there are none in either.
    """
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_threshold = -1, -3
    libc.mallopt(trim_threshold, 2**31 - 1)
    libc.mallopt(mmap_threshold, 1 << 25)


def interleave(
    calls: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of every call in every round; each round calls all of them, in turn.

    The order is rotated from round to round, so that none always follows the same neighbour.
    """
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warmup, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            calls[name]()
            elapsed = time.perf_counter() - start
            if turn >= 0:
                times[name].append(elapsed)
    return times


def rates(seconds: Sequence[float], amount: float) -> Spread:
    """`amount` (bytes, elements) over seconds."""
    return Spread.of([amount / value for value in seconds])


def ratios(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times as fast `faster` is, round by round."""
    return Spread.of([a / b for a, b in zip(slower, faster, strict=True)])


COLUMNS = [
    *(field.name for field in fields(Row) if field.name != "spread"),
    *(field.name for field in fields(Spread)),
    "cpu",
    "torch",
    "nondet_probe",
    "utc",
    "commit",
]


def write_rows(stem: str, rows: Sequence[Row]) -> Path:
    """Append rows to `results/<stem>.csv`, with what they were measured on."""
    found = snapshot()
    commit = found["commit"]
    origin = {
        "cpu": f"{found['machine']['cpu']} x {found['machine']['cpus']}",
        "torch": found["versions"]["torch"],
        "nondet_probe": found["versions"]["nondet-probe"],
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit["id"][:12] + ("+" if commit["dirty"] else "") if commit else "none",
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{stem}.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            figures = asdict(row)
            figures |= {key: f"{value:.6g}" for key, value in figures.pop("spread").items()}
            writer.writerow(figures | origin)
    return path
