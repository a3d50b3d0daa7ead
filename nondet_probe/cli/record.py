"""`nondet-probe record`: check what was asked for, tell the cost, become the script."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import typer

from nondet_probe.cli.against import record_against
from nondet_probe.cli.diff import check_page
from nondet_probe.cli.place import claim_directory
from nondet_probe.env.script import check_script
from nondet_probe.errors import UsageError
from nondet_probe.probe.inject.rehearse import check_fault
from nondet_probe.probe.recorder.control import parse_steps
from nondet_probe.probe.recorder.costs import expected_sentence
from nondet_probe.probe.recorder.live import open_reference
from nondet_probe.probe.recorder.recording import check_choices
from nondet_probe.probe.recorder.script import relaunch
from nondet_probe.records.fault import load_fault

__all__ = ["record"]


def record(
    command: list[str],
    out: Path | None,
    *,
    module: bool,
    level: str,
    outputs_only: bool,
    names: str | None,
    steps: str | None,
    inject: Path | None,
    against: Path | None,
    html: Path | None,
    as_json: bool,
    sketch: bool,
) -> NoReturn:
    """The command with its options as they were typed. UsageError before the script starts."""
    check_script(command, module=module)
    check_choices(level=level, names=names)
    wanted = parse_steps(steps) if steps is not None else None
    reference = None
    if against is not None:
        reference = open_reference(against, level=level, inputs=not outputs_only)
        if html is not None:
            check_page(html)
    elif html is not None or as_json:
        raise UsageError("--html and --json are of the comparison with --against RUN")
    fault = load_fault(inject) if inject is not None else None
    if fault is not None:
        check_fault(fault)
    directory = claim_directory(out, "record", Path(command[0]).stem)
    sentence = expected_sentence(level, not outputs_only)
    typer.echo(f"nondet-probe: {sentence}; the trace is {directory}", err=True)
    options: dict[str, Any] = {
        "module": module,
        "level": level,
        "outputs_only": outputs_only,
        "names": names,
        "steps": wanted,
        "sketch": sketch,
        "inject": fault,
    }
    if reference is None:
        relaunch(command, directory, **options)
    record_against(command, directory, reference, html=html, as_json=as_json, **options)
