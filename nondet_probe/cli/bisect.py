"""`nondet-probe bisect`: pairs of runs of a script, recorded finer and finer where they differ."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from nondet_probe.cli import exit_codes
from nondet_probe.cli.diff import check_page, show, told_of
from nondet_probe.cli.pairs import Pairs
from nondet_probe.cli.place import claim_directory, give_back
from nondet_probe.cli.replay import replay, why_not
from nondet_probe.cli.waiting import Waiting
from nondet_probe.env.script import check_script
from nondet_probe.env.switches import stored_variables
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.ladder import climb
from nondet_probe.records.codec import encode
from nondet_probe.records.difference import Cause, TraceDifference
from nondet_probe.records.ladder import Ladder, Rung, save_ladder
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
    told = told_of(found)
    of_ladder = {"directory": str(directory), "ladder": encode(ladder)}
    show(told._replace(data=lambda: told.data() | of_ladder), html, as_json)
    raise typer.Exit(told.code)


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
        cause = replay(found, folder, stdin=subprocess.DEVNULL)
    if cause.kept is None:
        give_back(folder)
    return cause
