"""How the figures are measured and kept: `nondet_probe.probe.timing`, into files of this folder.

Rows are appended to `benchmarks/results/<stem>.csv` in long format, one figure a row, with the
machine, the versions and the commit that gave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nondet_probe.env import snapshot
from nondet_probe.probe.timing import interleave, keep_memory, rates, ratios
from nondet_probe.records.figures import Row, Spread, append_rows, origin_of

__all__ = ["Row", "Spread", "interleave", "keep_memory", "rates", "ratios", "write_rows"]

RESULTS = Path(__file__).parent / "results"


def write_rows(stem: str, rows: Sequence[Row]) -> Path:
    """Append rows to `results/<stem>.csv`, with what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{stem}.csv"
    append_rows(path, rows, origin_of(snapshot()))
    return path
