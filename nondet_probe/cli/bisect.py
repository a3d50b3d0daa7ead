"""`nondet-probe bisect`: pairs of runs of a script, recorded finer and finer where they differ."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from nondet_probe.cli import exit_codes
from nondet_probe.cli.pairs import Pairs
from nondet_probe.cli.place import check_page, claim_directory, give_back
from nondet_probe.cli.replay import replay, why_not
from nondet_probe.cli.show import show_findings
from nondet_probe.cli.waiting import Waiting
from nondet_probe.env.script import check_script
from nondet_probe.env.switches import stored_variables
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.ladder import climb
from nondet_probe.records.codec import encode
from nondet_probe.records.difference import Cause, TraceDifference
from nondet_probe.records.ladder import Ladder, Rung, save_ladder
from nondet_probe.report.difference_json import difference_json
from nondet_probe.report.difference_limits import limits, notes
from nondet_probe.report.difference_page import render_difference
from nondet_probe.report.difference_tables import summary
from nondet_probe.report.difference_words import difference_verdict, unaligned
from nondet_probe.report.html import write_page
from nondet_probe.report.ladder_words import ladder_notes, rung_line

__all__ = ["bisect"]


def bisect(
    command: list[str], *, module: bool, env_b: Sequence[str], html: Path | None, as_json: bool
) -> NoReturn:
    """Run the command with its options as they were typed; leaves with the exit code. UsageError
    before the script starts."""
    check_script(command, module=module)
    variables = _variables(env_b)
    if html is not None:
        check_page(html)
    directory = claim_directory(None, "bisect", Path(command[0]).stem)
    typer.echo(f"nondet-probe: the script runs twice a rung; all is kept in {directory}", err=True)
    stored = stored_variables(variables)
    ladder = Ladder(
        command=["-m", *command] if module else command,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        variables_b={name: stored.get(name) for name in variables},
    )
    save_ladder(ladder, directory)
    try:
        runs = Pairs(command, directory, module=module, variables_b=variables)
        found = _climbed(ladder, directory, runs)
        ladder.status = "complete"
    except RunFailedError as error:
        ladder.status, ladder.failure = "failed", str(error).partition("\n")[0]
        typer.echo(f"nondet-probe: {error}", err=True)
        raise typer.Exit(exit_codes.FAILED) from None
    except BaseException:
        ladder.status = "interrupted"
        raise
    finally:
        save_ladder(ladder, directory)
    _show(found, ladder, directory, html, as_json)


def _variables(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.strip() or "\0" in one:
            raise UsageError(f"--env-b {one!r}: NAME=VALUE is needed, such as OMP_NUM_THREADS=1")
        found[name] = value
    return found


def _climbed(ladder: Ladder, directory: Path, runs: Pairs) -> TraceDifference:
    def told(rung: Rung) -> None:
        ladder.rungs.append(rung)
        save_ladder(ladder, directory)
        typer.echo(f"nondet-probe: {rung_line(rung)}", err=True)

    found = climb(runs, told, other_environment=bool(ladder.variables_b))
    ladder.answer = Path(found.a).parent.name
    found.warnings += ladder_notes(ladder)
    if found.roots and found.meta_a is not None and found.meta_a.level == "op":
        found.cause = _cause(found, directory / "cause")
        ladder.cause = found.cause.kept
    return found


def _cause(found: TraceDifference, folder: Path) -> Cause:
    reason = why_not(found)
    if reason is not None:
        return Cause(missing=[f"the cause: {reason}"])
    folder.mkdir()
    with Waiting("executing the op again"):
        cause = replay(found, folder)
    if cause.kept is None:
        give_back(folder)
    return cause


def _show(
    found: TraceDifference, ladder: Ladder, directory: Path, html: Path | None, as_json: bool
) -> NoReturn:
    if html is not None:
        write_page(render_difference(found), html)
    data = None
    if as_json:
        data = {**difference_json(found), "directory": str(directory), "ladder": encode(ladder)}
    said = difference_verdict(found)
    show_findings(said, notes(found), summary(found), limits(found), html, data)
    compared = found.compared or unaligned(found)
    code = exit_codes.CLEAN if found.equal else exit_codes.FOUND
    raise typer.Exit(code if compared else exit_codes.USAGE)
