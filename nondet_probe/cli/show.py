"""What a command prints: the verdict and tables for a person, or JSON alone for a program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nondet_probe.env import snapshot
from nondet_probe.ops.backends import available
from nondet_probe.records import RunRecord, to_json
from nondet_probe.records.codec import encode
from nondet_probe.records.figures import Row, plain
from nondet_probe.records.trace_reader import Trace
from nondet_probe.report import (
    audittables,
    costtables,
    prices,
    pricetables,
    tables,
    trace_listing,
    twintables,
    verdict,
)
from nondet_probe.report.difference_json import record_json

__all__ = ["show_environment", "show_findings", "show_prices", "show_run", "show_trace"]


_LEGEND = (
    "Stream: share of the speed at which this machine only reads. Torch, Det.: times as fast as "
    "PyTorch's default and deterministic mode. Mem.: beyond the result; small is below 1 MiB. "
    "Diff.: different results among the repeats. Ulps: largest distance to the exact result."
)


class _Terminal(Console):
    """A console that leaves the exit code to us: rich would exit with 1 on a closed pipe."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Whoever reads our output may have had enough; the exit code is still worth something."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@_reader_may_leave()
def show_run(record: RunRecord, report: Path | None, as_json: bool) -> None:
    """Print `record`; `report` is the page beside it, if there is one."""
    if as_json:
        page = str(report) if report is not None else None
        _print_json({"verdict": verdict(record), "report": page, "record": to_json(record)})
        return
    console = _Terminal()
    console.print()
    console.print(escape(verdict(record)), style="bold")
    shown = [*tables.summary(record), *twintables.every(record)]
    if record.audit is not None:
        shown.append(audittables.settings(record.audit))
    shown.append(audittables.op_summary(audittables.classes_of(record)))
    if record.cost is not None:
        shown.append(costtables.dearest(record.cost))
    for table in [table for table in shown if table.rows]:
        console.print()
        console.print(_rich(table))
    if record.cost is not None and (told := costtables.fill_phrase(record.cost)):
        console.print()
        console.print(escape(told))
    if report is not None:
        console.print()
        console.print("Report: ", end="")
        console.print(escape(str(report)), soft_wrap=True)


@_reader_may_leave()
def show_prices(
    rows: Sequence[Row],
    found: Mapping[str, Any],
    page: Path,
    file: Path,
    interrupted: bool,
    as_json: bool,
) -> None:
    """Print a price list; `page` and `file` are what was written of it."""
    said = prices.price_verdict(rows, interrupted)
    if as_json:
        head = {"verdict": said, "interrupted": interrupted, "report": str(page)}
        body = {"rows_file": str(file), "environment": found, "rows": [plain(row) for row in rows]}
        _print_json(encode(head | body))
        return
    console = _Terminal()
    console.print()
    console.print(escape(said), style="bold")
    groups = prices.grouped(rows)
    console.print()
    console.print(_rich(prices.overview(groups)))
    for group in groups:
        console.print()
        shown = _rich(pricetables.short_price_table(group))
        for column in shown.columns:
            column.no_wrap = True
        console.print(shown)
        console.print(pricetables.variability_line(group), style="dim")
    console.print()
    console.print(_LEGEND, style="dim")
    for name, path in (("Report", page), ("Every figure", file)):
        console.print(f"{name}: ", end="")
        console.print(escape(str(path)), soft_wrap=True)


@_reader_may_leave()
def show_findings(
    said: str,
    notes: Sequence[str],
    shown: Sequence[tables.Table],
    limits: Sequence[str],
    page: Path | None,
    data: dict[str, Any] | None,
) -> None:
    """Print a comparison, or `data` alone as JSON where it is given; `page` is what was written."""
    if data is not None:
        _print_json(data | {"report": str(page) if page is not None else None})
        return
    console = _Terminal()
    console.print()
    console.print(escape(said), style="bold")
    for note in notes:
        console.print(escape(note))
    for table in shown:
        console.print()
        console.print(_rich(table))
    console.print()
    for sentence in limits:
        console.print(escape(sentence), style="dim")
    if page is not None:
        console.print()
        console.print("Report: ", end="")
        console.print(escape(str(page)), soft_wrap=True)


@_reader_may_leave()
def show_trace(trace: Trace, step: int | None, as_json: bool) -> None:
    """Print what a trace says of itself, then its records, all or those of one step."""
    if as_json:
        _print_line({"trace": str(trace.directory), "meta": encode(trace.meta)})
        for record in trace.records(step):
            _print_line(record_json(record))
        return
    console = _Terminal()
    console.print()
    for table in trace_listing.overview(trace):
        console.print(_rich(table))
        console.print()
    # Line by line, not as a table: it would be held back until the last record was read.
    for line in trace_listing.lines(trace, step):
        print(line)


def show_environment(as_json: bool) -> None:
    """Print machine, versions and switches as found, and the backends of ops."""
    listed = {b.name: {"usable": b.usable, "reason": b.reason} for b in available()}
    found = snapshot() | {"backends": listed}
    if as_json:
        _print_json(found)
        return
    _Terminal().print(_rich(tables.environment(found)))


def _rich(table: tables.Table) -> Table:
    shown = Table(
        title=table.title or None,
        title_justify="left",
        title_style="bold",
        show_header=any(table.columns),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in table.columns:
        shown.add_column(column, overflow="fold")
    for row in table.rows:
        shown.add_row(*(escape(cell) for cell in row))
    return shown


def _print_line(data: dict[str, Any]) -> None:
    print(json.dumps(data, allow_nan=False))


def _print_json(data: dict[str, Any]) -> None:
    # ASCII, so that it can be printed whatever the encoding of stdout is.
    print(json.dumps(data, indent=1, allow_nan=False))
