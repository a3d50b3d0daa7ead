"""Measured figures in long format, one a row, in a CSV file that grows: what was measured, how it
spread, and the machine, versions and commit that gave it."""

from __future__ import annotations

import csv
import io
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["COLUMNS", "Row", "Spread", "append_rows", "origin_of", "plain"]


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

    @classmethod
    def single(cls, value: float, rounds: int) -> Spread:
        """A figure that all `rounds` gave together: a count, a largest value."""
        return cls(value, value, value, rounds)


@dataclass(frozen=True)
class Row:
    """One figure.

    n: elements of the input; threads: 0 on a GPU; metric: what was measured, such as "time",
    "rate" or "ratio to <provider>"; spread: None where there is no figure, and `note` then says
    why.
    guarantee: what the provider promises, "" where it promises nothing in our words.
    """

    op: str
    provider: str
    dtype: str
    n: int
    threads: int
    metric: str
    unit: str
    spread: Spread | None
    guarantee: str = ""
    note: str = ""


COLUMNS = [
    *("op", "provider", "dtype", "n", "threads", "metric", "unit"),
    *(field.name for field in fields(Spread)),
    "cpu",
    "torch",
    "nondet_probe",
    "utc",
    "commit",
]
"""Of the files in `benchmarks/results`; a price list has the others of a row at the end."""


def plain(row: Row) -> dict[str, Any]:
    """The row as one flat mapping; the figures are None where there is none."""
    values = {field.name: getattr(row, field.name) for field in fields(Row)}
    spread = values.pop("spread")
    return values | {field.name: getattr(spread, field.name, None) for field in fields(Spread)}


def origin_of(found: Mapping[str, Any]) -> dict[str, str]:
    """The columns that say what rows are measured on, now; found: `env.snapshot()`, with what they
    are measured on as "device" where that is not the CPU."""
    commit = found["commit"]
    return {
        "cpu": f"{found['machine']['cpu']} x {found['machine']['cpus']}",
        "torch": found["versions"]["torch"],
        "nondet_probe": found["versions"]["nondet-probe"],
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit["id"][:12] + ("+" if commit["dirty"] else "") if commit else "none",
        "device": found.get("device", "cpu"),
    }


def append_rows(
    path: Path, rows: Iterable[Row], origin: Mapping[str, str], columns: Sequence[str] = COLUMNS
) -> None:
    """Append rows to the CSV file at `path`, with a header where it is new.

    In one write: whoever reads the file meanwhile, or is left with it after a crash, has whole
    rows.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    with path.open("ab") as file:
        if file.tell() == 0:
            writer.writeheader()
        for row in rows:
            figures = plain(row)
            for field in fields(Spread):
                value = figures[field.name]
                figures[field.name] = "" if value is None else f"{value:.6g}"
            writer.writerow({**figures, **origin})
        file.write(text.getvalue().encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
