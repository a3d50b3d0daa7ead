"""The words of a price list's rows, and which rows show that a variant broke its promise."""

from __future__ import annotations

from collections.abc import Iterable

from nondet_probe.records.figures import COLUMNS, Row

__all__ = [
    "ACROSS_THREADS",
    "COLUMNS_OF_PRICES",
    "DISTINCT",
    "ERROR",
    "MEMORY",
    "RATE",
    "SHARE",
    "STREAM",
    "TIME",
    "TORCH",
    "TORCH_DETERMINISTIC",
    "TO_TORCH",
    "TO_TORCH_DETERMINISTIC",
    "broken_promises",
]

# Providers that are no variants.
TORCH = "torch"
TORCH_DETERMINISTIC = "torch deterministic"
STREAM = "read stream"

# Metrics. The measures of variability go by their own names.
TIME = "time"
RATE = "rate"
SHARE = "share of read stream"
TO_TORCH = f"ratio to {TORCH}"
TO_TORCH_DETERMINISTIC = f"ratio to {TORCH_DETERMINISTIC}"
MEMORY = "extra memory"
DISTINCT = "distinct results"
ACROSS_THREADS = "distinct results over thread counts"
ERROR = "largest error"

COLUMNS_OF_PRICES = [*COLUMNS, "guarantee", "note", "device"]

_NO_PROMISE = ("", "none")
_OF_ONE_LAUNCH = (*_NO_PROMISE, "run_to_run")


def broken_promises(rows: Iterable[Row]) -> list[Row]:
    """Rows of variants that failed, or that gave different bits where they promise the same."""
    return [row for row in rows if _broken(row)]


def _broken(row: Row) -> bool:
    if row.metric == TIME and row.spread is None:
        return row.guarantee != "" and row.note.startswith("raises")
    if row.spread is None or row.spread.median <= 1:
        return False
    if row.metric == DISTINCT:
        return row.guarantee not in _NO_PROMISE
    return row.metric == ACROSS_THREADS and row.guarantee not in _OF_ONE_LAUNCH
