"""What a command prints: the verdict and tables for a person, or JSON alone for a program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nondet_probe.env import snapshot
from nondet_probe.records import RunRecord, to_json
from nondet_probe.report import tables, verdict

__all__ = ["show_environment", "show_run"]


class _Terminal(Console):
    """A console that leaves the exit code to us: rich would exit with 1 on a closed pipe."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def show_run(record: RunRecord, report: Path, as_json: bool) -> None:
    """Print `record`; `report` is the page that was written beside it."""
    if as_json:
        _print_json({"verdict": verdict(record), "report": str(report), "record": to_json(record)})
        return
    console = _Terminal()
    console.print()
    console.print(escape(verdict(record)), style="bold")
    for table in tables.summary(record):
        console.print()
        console.print(_rich(table))
    console.print()
    console.print("Report: ", end="")
    console.print(escape(str(report)), soft_wrap=True)


def show_environment(as_json: bool) -> None:
    """Print machine, versions and switches as found."""
    found = snapshot()
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
