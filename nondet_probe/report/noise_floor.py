"""Two runs against the fan of one bit, in words, tables, JSON, and as one HTML file."""

from __future__ import annotations

import math
from typing import Any, Literal

from nondet_probe.records.codec import encode
from nondet_probe.records.noise_floor import NoiseFloor, Placing, TwinCurve
from nondet_probe.report.drift import drift_limits
from nondet_probe.report.explain import GLOSSARY
from nondet_probe.report.findings import Section, render_findings
from nondet_probe.report.keyfigures import KeyFigure
from nondet_probe.report.spell import clip, count, number, one_line, plural
from nondet_probe.report.tables import Table

__all__ = [
    "floor_json",
    "floor_limits",
    "floor_notes",
    "floor_tables",
    "floor_verdict",
    "render_floor",
]

_MOST_ROWS = 20

_NAMES: dict[str, str] = {
    "equal": "No divergence",
    "below": "Below a sketch's resolution",
    "not finite": "Not finite",
    "nondeterministic": "The control differs",
    "one bit": "As one bit",
    "larger": "More than one bit",
    "smaller": "Less than one bit",
    "unlike": "Unlike one bit",
    "unknown": "No verdict",
}

_WORDS = {
    "twin": "the first run's command, run again with the lowest bit of one weight changed",
    "control": "the first run's command, run again without a change; it must be where the first "
    "run was, bit for bit, or nothing is said about one bit",
    "band": "where a further twin is expected with a probability of 95%, step by step",
    "relative": "the 2-norm of the difference of all parameters over that of the parameters",
    "absorbed": "at distance 0 from the control to the end",
}


def floor_verdict(floor: NoiseFloor) -> str:
    """The answer, in one sentence."""
    place = floor.placing
    a, b = clip(floor.drift.reference, 80), clip(floor.observed.run, 80)
    steps = plural(len(floor.observed.steps), "step")
    if place.outcome == "equal":
        return f"No divergence: {b} has the sketches of {a} at all {steps} compared."
    if place.outcome == "below":
        largest = max(floor.observed.relative)
        return (
            f"No divergence beyond what a sketch resolves: {b} is at most {number(largest)} of the "
            f"norm apart from {a}, and up to {number(floor.resolution)} may be rounding."
        )
    if place.outcome == "not finite":
        return f"{b} cannot be placed: {_not_finite(floor)}."
    if place.outcome == "nondeterministic":
        return _of_control(floor, a, b)
    if place.outcome == "unknown":
        return f"{b} cannot be placed: {one_line(place.reason)}."
    return f"{b} is {_against_twins(place, floor, a)}."


def floor_notes(floor: NoiseFloor) -> list[str]:
    """What the reader must know beside the verdict."""
    place, observed = floor.placing, floor.observed
    found = [one_line(sentence) for sentence in floor.warnings]
    if observed.only_here or observed.only_reference:
        found.append(
            f"{plural(len(observed.steps), 'step')} compared; left out are "
            f"{count(observed.only_here)} that only the second run has a sketch of and "
            f"{count(observed.only_reference)} that only the first has"
        )
    if place.window is not None and place.outcome != "not finite" and _first_broken(floor):
        found.append(f"not placed: {_not_finite(floor)}")
    if place.outcome == "one bit" and place.window is not None and place.step != place.window[0]:
        found.append(
            f"no distance was seen before step {place.window[0]}, and a bit of a weight that is "
            f"changed earlier shows at once: it is the size from step {place.window[0]} on that is "
            "the same"
        )
    if place.outcome in ("larger", "smaller", "unlike") and place.tried is not None:
        found.append(
            f"a change at any step from {place.tried} to {_window(place)[0]} was tried; "
            + (
                "the twins are too young for an earlier one, which a smaller --at would allow"
                if place.tried > 0
                else "none of them explains it"
            )
        )
    return found + _of_twins(floor)


def floor_limits(floor: NoiseFloor) -> list[str]:
    """How far the answer can be trusted."""
    found = drift_limits(floor.drift)
    if floor.twins:
        found += [
            "What has the size of one changed bit may have another cause; nondet-probe diff tells "
            "where two runs begin to differ.",
            f"The band and the interval are of {plural(len(floor.twins), 'twin')}; the growth "
            f"after another step is taken to be that after step {floor.at}.",
        ]
    return found


def floor_tables(floor: NoiseFloor) -> list[Table]:
    """The distances beside the twins' band, at most 20 steps; and the twins."""
    return [table for table in (_steps(floor), _twins(floor)) if table.rows]


def floor_json(floor: NoiseFloor) -> dict[str, Any]:
    """As docs/noise-floor.md describes it."""
    return {
        "verdict": floor_verdict(floor),
        **encode(floor),
        "notes": floor_notes(floor),
        "limits": floor_limits(floor),
    }


def render_floor(floor: NoiseFloor) -> str:
    """The page as the text of an HTML document; the same noise floor gives the same bytes.

    Raises UsageError when jinja2 or matplotlib is missing.
    """
    from nondet_probe.report.fanplot import fan_plot

    outcome: Literal["clean", "nondeterministic", "unknown"] = "nondeterministic"
    if floor.placing.outcome in ("equal", "below", "one bit"):
        outcome = "clean"
    elif floor.placing.outcome in ("unknown", "not finite"):
        outcome = "unknown"
    return render_findings(
        command="drift",
        outcome=outcome,
        outcome_name=_NAMES[floor.placing.outcome],
        verdict=floor_verdict(floor),
        notes=floor_notes(floor),
        subject=f"{clip(floor.drift.reference, 80)} and {clip(floor.observed.run, 80)}",
        figures=_figures(floor),
        sections=[
            Section(
                "The runs among the twins",
                "How far the second run is from the first, and how far one changed bit leads.",
                picture=fan_plot(floor, "fan"),
                caption="The vertical axis counts in powers of ten; exact zeros stand at its "
                "bottom. Thin: single twins; shaded: the band in which a further one is expected.",
            ),
            Section(
                "The figures", "Row s is the state that step s left.", tables=floor_tables(floor)
            ),
            Section("How far to trust it", sentences=floor_limits(floor)),
        ],
        glossary=_WORDS | {"step": GLOSSARY["step"]},
    )


def _window(place: Placing) -> tuple[int, int]:
    assert place.window is not None, "the runs are apart somewhere"
    return place.window


def _span(place: Placing) -> str:
    first, last = _window(place)
    return f"over steps {first} to {last}" if first < last else f"at step {first}"


def _against_twins(place: Placing, floor: NoiseFloor, a: str) -> str:
    if place.outcome == "one bit":
        first = f"{place.first} or earlier" if place.open else str(place.first)
        return (
            f"indistinguishable from {a} with one bit changed at step {place.step} (interval "
            f"{first} to {place.last}), by their distance {_span(place)}"
        )
    if place.factor is None:
        return (
            f"farther from {a} {_span(place)} than one bit changed at step {floor.at} leads, which "
            f"leaves nothing there: all {plural(len(floor.twins), 'twin')} were absorbed"
        )
    told = (
        f"(interval {number(place.factor_low)} to {number(place.factor_high)}; median "
        f"{_span(place)}, against one bit changed at step {floor.at})"
    )
    if place.outcome == "larger":
        return f"farther from {a} than one bit leads, by a factor of {number(place.factor)} {told}"
    if place.outcome == "smaller":
        return f"nearer to {a} than one bit leads, {number(place.factor)} times as far {told}"
    return (
        f"not where one bit leads: of {plural(place.compared, 'step')} compared with one bit "
        f"changed at step {floor.at}, it is farther from {a} than the twins' band at "
        f"{count(place.above)} and nearer at {count(place.below)}"
    )


def _of_control(floor: NoiseFloor, a: str, b: str) -> str:
    control = floor.control
    assert control is not None, "it has this outcome by its control"
    start = (
        "Nothing can be said about one bit, since the control, which is the command of "
        f"{a} run again without a change, differs from it by itself from step {control.first} on"
    )
    theirs = dict(zip(control.steps, control.relative, strict=True))
    for step, distance in zip(
        reversed(floor.observed.steps), reversed(floor.observed.relative), strict=True
    ):
        other = theirs.get(step, math.nan)
        if math.isfinite(distance) and math.isfinite(other) and other > 0.0:
            return (
                f"{start}; after step {step} {b} is {number(distance / other)} times as far from "
                f"{a} as the control is."
            )
    return f"{start}."


def _first_broken(floor: NoiseFloor) -> str | None:
    pairs = zip(floor.observed.steps, floor.observed.relative, strict=True)
    return next((str(step) for step, value in pairs if not math.isfinite(value)), None)


def _not_finite(floor: NoiseFloor) -> str:
    return f"from step {_first_broken(floor)} on the distance of the two runs is not finite"


def _of_twins(floor: NoiseFloor) -> list[str]:
    found = []
    absorbed = [twin for twin in floor.twins if twin.absorbed is not None]
    broken = [twin for twin in floor.twins if twin.broken is not None]
    of = f"of {plural(len(floor.twins), 'twin')}"
    if absorbed:
        found.append(f"{count(len(absorbed))} {of} absorbed: {_told(absorbed, 'absorbed')}")
    if broken:
        found.append(f"{count(len(broken))} {of} became not finite: {_told(broken, 'broken')}")
    reused = sum(twin.reused for twin in floor.twins)
    if reused:
        found.append(
            f"{count(reused)} {of} taken from an earlier call, in {clip(floor.folder, 80)}"
        )
    return found


def _told(twins: list[TwinCurve], which: Literal["absorbed", "broken"]) -> str:
    steps = sorted(getattr(twin, which) for twin in twins)
    shown = ", ".join(str(step) for step in steps[:5])
    return f"from step {shown}" + (", ..." if len(steps) > 5 else "") + " on"


def _figures(floor: NoiseFloor) -> list[KeyFigure]:
    place = floor.placing
    figures = []
    if place.step is not None:
        first = f"{place.first} or earlier" if place.open else str(place.first)
        figures.append(
            KeyFigure("One bit at step", str(place.step), f"interval {first} to {place.last}")
        )
    if place.factor is not None:
        figures.append(
            KeyFigure(
                "Over the twins' middle",
                number(place.factor),
                f"interval {number(place.factor_low)} to {number(place.factor_high)}, against a "
                f"bit changed at step {floor.at}",
            )
        )
    if floor.control is not None:
        differs = floor.control.first
        figures.append(
            KeyFigure(
                "Control",
                "no distance" if differs is None else f"differs at step {differs}",
                f"{plural(len(floor.control.steps), 'step')} compared with the first run",
            )
        )
    figures.append(
        KeyFigure("Twins", count(len(floor.twins)), "each with one changed bit, drawn by seed")
    )
    return figures


def _steps(floor: NoiseFloor) -> Table:
    start = floor.placing.step if floor.placing.step is not None else floor.at
    title = "Relative distances" + (
        f", and the band of a bit changed at step {start}" if floor.twins else ""
    )
    columns = ["Step", "Runs", "Twins, low", "middle", "high"]
    control = (
        dict(zip(floor.control.steps, floor.control.relative, strict=True))
        if (floor.control is not None and not floor.twins)
        else {}
    )
    if not floor.twins:
        columns = ["Step", "Runs", "Control"]
    steps, values = floor.observed.steps, floor.observed.relative
    rows = []
    for i in _spread(len(steps)):
        row = [str(steps[i]), _spelled(values[i])]
        if floor.twins and start is not None:
            age = steps[i] - start
            band = floor.band
            known = 0 <= age < len(band.ages)
            row += [_spelled(v[age]) if known else "" for v in (band.low, band.middle, band.high)]
        else:
            row.append(_spelled(control[steps[i]]) if steps[i] in control else "")
        rows.append(row)
    return Table(title, columns, rows)


def _twins(floor: NoiseFloor) -> Table:
    rows = [
        [
            clip(twin.run, 60),
            one_line(twin.fault, 80),
            f"{_spelled(twin.relative[-1])} at step {twin.steps[-1]}",
            "reused" if twin.reused else "run now",
        ]
        for twin in floor.twins
    ]
    return Table("The twins", ["Twin", "Changed", "Relative distance", ""], rows, frozenset({1}))


def _spread(steps: int) -> list[int]:
    if steps <= _MOST_ROWS:
        return list(range(steps))
    return [round(i * (steps - 1) / (_MOST_ROWS - 1)) for i in range(_MOST_ROWS)]


def _spelled(value: float) -> str:
    return number(value) if math.isfinite(value) else "not finite"
