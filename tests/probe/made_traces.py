"""Traces made by hand, in memory, for the tests of what compares them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nondet_probe.records.trace import Site, TraceMeta, Words
from nondet_probe.records.trace_reader import Columns, Trace

__all__ = ["Made", "made", "op"]

Made = tuple[int, Site, int | None, int | None]
"""Step, site, and the digests of inputs and outputs, of which only the first word is given."""


def op(
    name: str, module: str | None = "net", line: int | None = None, phase: str = "forward"
) -> Site:
    """The site of an op."""
    return Site(phase, "op", f"aten.{name}.default", module, None if line is None else "m.py", line)


def made(records: Iterable[Made], name: str = "run", **meta: object) -> Trace:
    """A trace of these records; `meta` are fields of TraceMeta."""
    rows = list(records)
    sites: dict[Site, int] = {}
    for _, site, _, _ in rows:
        sites.setdefault(site, len(sites))
    columns: Sequence[np.ndarray] = [
        np.arange(len(rows)),
        _column(step for step, _, _, _ in rows),
        _column(sites[site] for _, site, _, _ in rows),
        _column(inputs or 0 for _, _, inputs, _ in rows),
        np.zeros(len(rows), np.int64),
        _column(outputs or 0 for _, _, _, outputs in rows),
        np.zeros(len(rows), np.int64),
        np.array([inputs is not None for _, _, inputs, _ in rows], np.bool_),
        np.array([outputs is not None for _, _, _, outputs in rows], np.bool_),
    ]
    fields = {"level": "op", "inputs": True, "command": None, "created": "", "environment": {}}
    described = TraceMeta(**{**fields, "digest_format": "d", "status": "complete", **meta})
    described.coverage.records = len(rows)
    return Trace(Path(name), described, list(sites), Columns(*columns), {})


def words(first: int | None) -> Words | None:
    """What a reader shows for the digest of a record made with this one."""
    return None if first is None else (first, 0)


def _column(values: Iterable[int]) -> np.ndarray:
    return np.array(list(values), np.int64)
