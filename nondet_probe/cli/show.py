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
from nondet_probe.report import audittables, costtables, prices, pricetables, tables, verdict

__all__ = ["show_environment", "show_prices", "show_run"]


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
def show_run(record: RunRecord, report: Path, as_json: bool) -> None:
    """Print `record`; `report` is the page that was written beside it."""
    if as_json:
        _print_json({"verdict": verdict(record), "report": str(report), "record": to_json(record)})
        return
    console = _Terminal()
    console.print()
    console.print(escape(verdict(record)), style="bold")
    shown = tables.summary(record)
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


def _print_json(data: dict[str, Any]) -> None:
    # ASCII, so that it can be printed whatever the encoding of stdout is.
    print(json.dumps(data, indent=1, allow_nan=False))
