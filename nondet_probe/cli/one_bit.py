"""`nondet-probe drift A B --against-one-bit`: two runs, placed on the fan of twins of the first."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from nondet_probe.cli import exit_codes
from nondet_probe.cli.diff import check_page
from nondet_probe.cli.show import show_findings
from nondet_probe.cli.twins import Twins, check_command
from nondet_probe.cli.waiting import Waiting
from nondet_probe.errors import RecordError, RunFailedError, UsageError
from nondet_probe.probe.drift import drift
from nondet_probe.probe.noise_floor import MIN_TWINS, band_of, place, resolution, settled
from nondet_probe.records.drift import DriftCurve
from nondet_probe.records.noise_floor import FanBand, NoiseFloor, Placing, TwinCurve
from nondet_probe.records.trace import TraceMeta
from nondet_probe.records.trace_reader import open_sketches
from nondet_probe.report.html import write_page
from nondet_probe.report.noise_floor import (
    floor_json,
    floor_limits,
    floor_notes,
    floor_tables,
    floor_verdict,
    render_floor,
)
from nondet_probe.report.spell import plural

__all__ = ["DEFAULT_TWINS", "against_one_bit"]

DEFAULT_TWINS = 5


def against_one_bit(
    runs: Sequence[Path], twins: int | None, at: int | None, html: Path | None, as_json: bool
) -> NoReturn:
    """Run the command with its options as they were typed; leaves with the exit code. Raises
    UsageError before anything is run where the runs cannot be placed."""
    if len(runs) != 2:
        raise UsageError(
            f"--against-one-bit places one pair of runs, got {plural(len(runs), 'run')}"
        )
    count = DEFAULT_TWINS if twins is None else twins
    if count < MIN_TWINS:
        raise UsageError(
            f"--twins {count}: at least {MIN_TWINS} are needed; of one no spread can be told"
        )
    if html is not None:
        check_page(html)
    try:
        floor = _floor(runs[0], runs[1], count, at)
    except RecordError as error:
        raise UsageError(str(error)) from error
    except RunFailedError as error:
        typer.echo(f"nondet-probe: {error}", err=True)
        raise typer.Exit(exit_codes.FAILED) from None
    if html is not None:
        write_page(render_floor(floor), html)
    show_findings(
        floor_verdict(floor),
        floor_notes(floor),
        floor_tables(floor),
        floor_limits(floor),
        html,
        floor_json(floor) if as_json else None,
    )
    raise typer.Exit(exit_codes.CLEAN if floor.drift.clean else exit_codes.FOUND)


def _floor(a: Path, b: Path, count: int, at: int | None) -> NoiseFloor:
    with Waiting("comparing") as bar:
        found = drift([a, b], bar)
    with open_sketches(a) as reader:
        meta, last = reader.meta, reader.steps[-1]
    if at is not None and not 0 <= at <= last:
        raise UsageError(f"--at {at}: {a} has steps 0 to {last}")
    floor = NoiseFloor(
        found, Placing("equal"), None, None, [], FanBand(), None, resolution(found.elements)
    )
    floor.warnings += found.warnings
    observed = floor.observed
    known = settled(observed, floor.resolution)
    if known is not None:
        floor.placing = known
        return floor
    check_command(a, meta)
    apart = zip(observed.steps, observed.relative, strict=True)
    first = next(step for step, d in apart if math.isfinite(d) and d > floor.resolution)
    runs = Twins(a, meta)
    with runs.claimed():
        floor.folder = str(runs.folder)
        _tell(runs, count, meta)
        try:
            _run(floor, runs, a, count, first if at is None else at)
        except KeyboardInterrupt:
            typer.echo(
                f"nondet-probe: interrupted; {plural(runs.made + runs.reused, 'finished run')} "
                f"stay in {runs.folder}, and the same command goes on from there",
                err=True,
            )
            raise
    _changed_script(floor, meta)
    return floor


def _tell(runs: Twins, count: int, meta: TraceMeta) -> None:
    typer.echo(
        f"nondet-probe: the command of the first run is run again, as a control and up to {count} "
        f"times with one changed bit; what was run before is taken from {runs.folder}, where all "
        "is kept",
        err=True,
    )


def _run(floor: NoiseFloor, runs: Twins, a: Path, count: int, at: int) -> None:
    """Control and twins, and what they say."""
    control = runs.control()
    of_control = drift([a, control])
    floor.control = of_control.curves[0]
    floor.warnings += _news(of_control.warnings, floor)
    if floor.control.first is not None:
        floor.placing = Placing("nondeterministic")
        return
    before = runs.reused
    paths = []
    for number in range(count):
        paths.append((runs.twin(number, at), runs.reused > before))
        before = runs.reused
    floor.at = at
    with Waiting("comparing") as bar:
        fan = drift([control, *(path for path, _ in paths)], bar)
    floor.warnings += _news(fan.warnings, floor)
    curves = zip(fan.curves, paths, strict=True)
    floor.twins = [_twin(curve, path, at, reused) for curve, (path, reused) in curves]
    ages = max(curve.steps[-1] for curve in fan.curves) - at + 1
    values = [_by_step(twin.steps, twin.relative, at, ages) for twin in floor.twins]
    observed = floor.observed
    floor.band = band_of(values, fan.error)
    floor.placing = place(
        _by_step(observed.steps, observed.relative, 0, observed.steps[-1] + 1),
        values,
        at=at,
        resolution=floor.resolution,
        error=fan.error,
    )


def _news(warnings: list[str], floor: NoiseFloor) -> list[str]:
    return [sentence for sentence in warnings if sentence not in floor.warnings]


def _twin(curve: DriftCurve, path: Path, at: int, reused: bool) -> TwinCurve:
    with open_sketches(path) as reader:
        injected = reader.meta.injected
    assert injected is not None, "looked at when it had run"
    assert injected.change is not None, "looked at when it had run"
    change = injected.change
    pairs = [(s, d) for s, d in zip(curve.steps, curve.relative, strict=True) if s >= at]
    if not pairs:
        raise UsageError(f"{path} has no sketch from step {at} on: name another --at")
    broken = next((step for step, distance in pairs if not math.isfinite(distance)), None)
    absorbed = None
    for step, distance in reversed(pairs):
        if distance != 0.0:
            break
        absorbed = step
    return TwinCurve(
        run=str(path),
        fault=f"bit 0 of {change.name}[{change.index}], {change.dtype}",
        steps=[step for step, _ in pairs],
        relative=[distance for _, distance in pairs],
        absorbed=absorbed,
        broken=broken,
        reused=reused,
    )


def _by_step(steps: list[int], values: list[float], first: int, count: int) -> list[float]:
    """One value for each step from `first` on, NaN where there is none."""
    found = [math.nan] * count
    for step, value in zip(steps, values, strict=True):
        found[step - first] = value if math.isfinite(value) else math.nan
    return found


def _changed_script(floor: NoiseFloor, meta: TraceMeta) -> None:
    """Where the command does not repeat the run, the script may be another one by now."""
    if floor.placing.outcome != "nondeterministic" or not meta.command or meta.command[0] == "-m":
        return
    changed = time.gmtime(Path(meta.command[0]).stat().st_mtime)
    # UTC in both, to the second, so that the texts are in the order of time.
    if time.strftime("%Y-%m-%dT%H:%M:%S", changed) > meta.created[:19]:
        floor.warnings.append(
            f"{meta.command[0]} was written to after the first run was recorded: if the script is "
            "another one by now, that is why the control differs"
        )
