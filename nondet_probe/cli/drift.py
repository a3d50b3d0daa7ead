"""`nondet-probe drift`: how far apart recorded runs are, by their sketches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from nondet_probe.cli import exit_codes
from nondet_probe.cli.diff import check_page
from nondet_probe.cli.show import show_findings
from nondet_probe.cli.waiting import Waiting
from nondet_probe.errors import RecordError, UsageError
from nondet_probe.probe.drift import drift as measure
from nondet_probe.report.drift import (
    drift_json,
    drift_limits,
    drift_notes,
    drift_tables,
    drift_verdict,
    render_drift,
)
from nondet_probe.report.html import write_page

__all__ = ["drift"]


def drift(runs: Sequence[Path], html: Path | None, as_json: bool) -> None:
    """Run the command with its options as they were typed; leaves with the exit code. Raises
    UsageError where the runs cannot be compared."""
    if html is not None:
        check_page(html)
    try:
        with Waiting("comparing") as bar:
            found = measure(runs, bar)
    except RecordError as error:
        raise UsageError(str(error)) from error
    if html is not None:
        write_page(render_drift(found), html)
    show_findings(
        drift_verdict(found),
        drift_notes(found),
        drift_tables(found),
        drift_limits(found),
        html,
        drift_json(found) if as_json else None,
    )
    raise typer.Exit(exit_codes.CLEAN if found.clean else exit_codes.FOUND)
