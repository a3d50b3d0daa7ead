"""`nondet-probe diff`: what differs between two traces, or two files of state."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typer

from nondet_probe.cli import exit_codes
from nondet_probe.cli.place import claim_directory, give_back, require_report_libraries
from nondet_probe.cli.replay import replay, why_not
from nondet_probe.cli.show import show_findings
from nondet_probe.cli.waiting import Waiting
from nondet_probe.errors import RecordError, UsageError
from nondet_probe.probe.differ import diff_traces
from nondet_probe.probe.differ.state_files import SUFFIXES
from nondet_probe.probe.differ.states import diff_states
from nondet_probe.records.difference import Cause, TraceDifference
from nondet_probe.records.store import RECORD_FILE
from nondet_probe.records.trace_reader import open_trace
from nondet_probe.report.difference_json import difference_json, states_json
from nondet_probe.report.difference_limits import limits, notes
from nondet_probe.report.difference_page import render_difference
from nondet_probe.report.difference_tables import summary
from nondet_probe.report.difference_words import difference_verdict, unaligned
from nondet_probe.report.html import write_page
from nondet_probe.report.spell import listing
from nondet_probe.report.states import (
    render_states,
    state_limits,
    states_summary,
    states_verdict,
)
from nondet_probe.report.tables import Table

__all__ = ["Told", "check_page", "diff", "show", "told_of"]


class Told(NamedTuple):
    """What is said of a comparison, and the exit code; page and data are made when asked for."""

    verdict: str
    notes: list[str]
    tables: list[Table]
    limits: list[str]
    page: Callable[[], str]
    data: Callable[[], dict[str, Any]]
    code: int


def diff(a: Path, b: Path, html: Path | None, again: bool, as_json: bool) -> None:
    """Run the command with its options as they were typed; leaves with the exit code.

    again: run the command of `a` once more, up to the first root. Raises UsageError where the two
    cannot be compared.
    """
    if html is not None:
        check_page(html)
    try:
        if _are_traces(a, b):
            told = _of_traces(a, b, again)
        elif again:
            raise UsageError("--replay is for traces: a state file tells no command")
        else:
            told = _of_states(a, b)
    except RecordError as error:
        raise UsageError(str(error)) from error
    show(told, html, as_json)
    raise typer.Exit(told.code)


def show(told: Told, html: Path | None, as_json: bool) -> None:
    """Print it, and write the page where one is asked for."""
    if html is not None:
        write_page(told.page(), html)
    data = told.data() if as_json else None
    show_findings(told.verdict, told.notes, told.tables, told.limits, html, data)


def check_page(html: Path) -> None:
    """Say so before comparing, not after it, when the page could not be written."""
    require_report_libraries()
    if html.exists() or html.is_symlink():
        raise UsageError(f"--html {html}: exists; nothing is ever overwritten. Name another file.")
    if not html.parent.is_dir():
        raise UsageError(f"--html {html}: there is no folder {html.parent}")
    if not os.access(html.parent, os.W_OK):
        raise UsageError(f"--html {html}: the folder {html.parent} cannot be written to")


def _are_traces(a: Path, b: Path) -> bool:
    """Whether both are folders, rather than both files; UsageError otherwise."""
    for path in (a, b):
        if not path.exists():
            raise UsageError(f"{path} does not exist")
    if a.is_dir() != b.is_dir():
        folder, file = (a, b) if a.is_dir() else (b, a)
        raise UsageError(
            f"{folder} is a folder and {file} is a file: compare two traces (folders that "
            f"nondet-probe record wrote) or two state files ({', '.join(SUFFIXES)})"
        )
    for path in (a, b):
        if path.is_dir() and (path / RECORD_FILE).exists():
            raise UsageError(
                f"{path} is the directory of a checkup, rerun or twin, not a trace; look at it "
                f"with nondet-probe show {path}"
            )
    return a.is_dir()


def _of_traces(a: Path, b: Path, again: bool) -> Told:
    with Waiting("comparing"):
        found = _first_of_ranks(a, b)
    if again and not found.equal:
        found.cause = _replayed(found)
    if os.path.samefile(a, b):
        found.warnings.append("both are the same folder")
    return told_of(found)


def told_of(found: TraceDifference) -> Told:
    """What is said of two traces."""
    compared = (found.compared or unaligned(found)) and not found.unfinished
    code = exit_codes.CLEAN if found.equal else exit_codes.FOUND
    return Told(
        difference_verdict(found),
        notes(found),
        summary(found),
        limits(found),
        lambda: render_difference(found),
        lambda: difference_json(found),
        code if compared else exit_codes.USAGE,
    )


def _replayed(found: TraceDifference) -> Cause:
    reason = why_not(found)
    if reason is not None:
        return Cause(missing=[f"the cause: {reason}"])
    folder = claim_directory(None, "replay", Path(found.a).name)
    cause = replay(found, folder)
    if cause.kept is None:
        give_back(folder)
    return cause


def _first_of_ranks(a: Path, b: Path) -> TraceDifference:
    """The difference of the rank that differs first; of the others its warnings tell."""
    ranks, theirs = _ranks(a), _ranks(b)
    if ranks and theirs and ranks != theirs:
        raise UsageError(
            f"{a} holds ranks {_listed(ranks)}, {b} holds ranks {_listed(theirs)}: only runs of "
            "equally many processes can be compared"
        )
    # Where there is none, opening says what is missing.
    chosen: list[int | None] = [*ranks] or [None]
    found = [diff_traces(open_trace(a, rank), open_trace(b, rank)) for rank in chosen]
    first = min(found, key=lambda one: (one.equal, math.inf if one.step is None else one.step))
    for rank, one in zip(chosen, found, strict=True):
        if one is not first:
            how = f"equal ({one.compared} pairs)" if one.equal else "different"
            when = f", first at step {one.step}" if one.step is not None else ""
            first.warnings.append(f"rank {rank} was compared too and is {how}{when}")
    return first


def _ranks(folder: Path) -> list[int]:
    matches = [re.fullmatch(r"rank_(\d+)\..*sqlite", path.name) for path in folder.iterdir()]
    return sorted({int(match[1]) for match in matches if match})


def _listed(ranks: list[int]) -> str:
    return listing([str(rank) for rank in ranks]) or "none"


def _of_states(a: Path, b: Path) -> Told:
    with Waiting("comparing") as bar:
        found = diff_states(a, b, bar)
    code = exit_codes.FOUND if found.differences else exit_codes.USAGE
    return Told(
        states_verdict(found),
        [],
        states_summary(found),
        state_limits(found),
        lambda: render_states(found),
        lambda: states_json(found),
        exit_codes.CLEAN if found.equal else code,
    )
