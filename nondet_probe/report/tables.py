"""The rows of every table, as plain strings, for the page and the terminal alike.

A cell may hold several lines: the first is the figure, the others say more about it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nondet_probe.records import (
    CostRecord,
    Coverage,
    Fix,
    OpSite,
    RerunRecord,
    RunRecord,
    TwinRecord,
)
from nondet_probe.report.explain import ARMS
from nondet_probe.report.fates import changed, fate_told, of_predictions
from nondet_probe.report.keyfigures import key_figures
from nondet_probe.report.spell import (
    clip,
    count,
    number,
    one_line,
    percent,
    place,
    plural,
    printable,
    ratio,
    seconds,
    ulps,
)
from nondet_probe.report.words import best_fix, change_phrase, control_phrase

__all__ = [
    "Table",
    "cost",
    "coverage",
    "environment",
    "facts",
    "fixes",
    "ops",
    "overhead",
    "summary",
    "twin",
]


@dataclass(frozen=True)
class Table:
    """title; columns: their headings; rows: one string a column; code: columns that are code."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    code: frozenset[int] = field(default_factory=frozenset)


def summary(record: RunRecord) -> list[Table]:
    """What a terminal shows below the verdict: one screen; the page has the rest."""
    figures = [[figure.label, figure.value, figure.more] for figure in key_figures(record)]
    parts = [Table("Key figures", ["", "", ""], figures)]
    if record.rerun is not None:
        parts.append(ops(record.rerun))
    if record.cost is not None:
        parts.append(_short(cost(record.cost)))
    return [table for table in parts if table.rows]


def _short(table: Table) -> Table:
    """The first line of every cell."""
    rows = [[cell.partition("\n")[0] for cell in row] for row in table.rows]
    return replace(table, rows=rows)


def ops(rerun: RerunRecord) -> Table:
    """The nondeterministic ops, worst first."""
    rows = [
        [
            f"{printable(site.op)}\n{site.phase}{_module(site)}",
            f"{place(site.file, site.line, parts=3)}" + (f"\n{_code(site)}" if site.code else ""),
            f"{count(site.differing)} of {count(site.executions)}\n"
            f"in {count(site.differing_calls)} of {plural(site.calls, 'call')}",
            f"{ulps(site.max_ulp)}\nin {count(site.different_elements)} of "
            f"{plural(site.elements, 'element')}",
            _fix_cell(rerun, site),
        ]
        for site in rerun.sites
    ]
    columns = ["Op", "Source line", "Executions that differed", "Largest difference", "Fix"]
    return Table("Nondeterministic ops", columns, rows, frozenset({0, 1}))


def _module(site: OpSite) -> str:
    if site.module is None:
        return ", outside of any module"
    return f", in {clip(site.module, 60)}" if site.module else ", in the model itself"


def _code(site: OpSite) -> str:
    return one_line(site.code, 160)


def _fix_cell(rerun: RerunRecord, site: OpSite) -> str:
    fix = best_fix(rerun, site)
    if fix is None:
        return f"none found\n{len(site.fixes)} tried"
    more = len(site.fixes) - 1
    return f"{one_line(fix.name)}\nverified, {ratio(fix.ratio)} the op's time" + (
        f"\n{plural(more, 'other')} tried" if more else ""
    )


def fixes(rerun: RerunRecord) -> Table:
    """Every fix that was tried, with the line of Python that applies it."""
    rows = [
        [
            f"{printable(site.op)}\n{place(site.file, site.line)}",
            f"{one_line(fix.name)}\n{one_line(fix.how)}",
            _checked(fix),
            ratio(fix.ratio) + (f"\n{_spread(fix.spread)}" if fix.spread else ""),
        ]
        for site in rerun.sites
        for fix in site.fixes
    ]
    columns = ["For", "Fix, and how to apply it", "Verified", "Time of the op"]
    return Table("Fixes tried", columns, rows, frozenset({0, 1}))


def _checked(fix: Fix) -> str:
    if fix.error is not None:
        return f"could not be tried\n{one_line(fix.error)}"
    executed = plural(fix.executions, "execution")
    return f"yes\n{executed} alike" if fix.verified else f"no\n{executed}, still not alike"


def _spread(spread: tuple[float, float]) -> str:
    return f"{ratio(spread[0])} to {ratio(spread[1])}"


def cost(record: CostRecord) -> Table:
    """The ways to run the same steps, and what each takes."""
    rows = [
        [
            f"{one_line(arm.name)}\n{ARMS.get(arm.name, '')}".rstrip(),
            seconds(statistics.median(arm.seconds)) if arm.seconds else "none",
            "reference" if arm.name == "default" else ratio(arm.ratio),
            _spread(arm.spread) if arm.spread and arm.name != "default" else "none",
            count(len(arm.seconds)) + (f"\n{one_line(arm.error)}" if arm.error else ""),
        ]
        for arm in record.arms
    ]
    columns = ["Way to run", "Median step", "Time ratio", "Middle half of ratios", "Steps timed"]
    title = f"Cost of determinism, {plural(record.threads, 'thread')}"
    return Table(title, columns, rows)


def coverage(found: Coverage) -> Table:
    """Which op calls were checked, and which not and why."""
    rows = [
        ["seen by the probe", count(found.seen)],
        ["executed again and compared", count(found.rerun)],
        ["left out: views, which compute nothing", count(found.views)],
        ["left out: memory allocated without content", count(found.allocations)],
    ]
    missed = sorted(found.not_covered.items(), key=lambda item: (-item[1], item[0]))
    rows += [[f"not covered: {one_line(reason)}", count(calls)] for reason, calls in missed]
    if not missed:
        rows.append(["not covered", "0"])
    return Table("Coverage", ["Op calls", "Number"], rows)


def twin(run: TwinRecord) -> Table:
    """What one changed bit did, as pairs of a question and its answer."""
    first = run.onset[0].step if run.onset else 0
    rows = [
        ["what was changed", changed(run.change, run.fault, first)],
        ["the unperturbed copy (control)", control_phrase(run)],
        ["what became of the bit", _fate(run)],
        ["half of all parameters' elements differ", _half(run)],
    ]
    if run.growth is not None:
        fit = run.growth
        rows.append(
            [
                "growth rate",
                f"{number(fit.rate)} a step in natural-log units\n95% interval {number(fit.low)} "
                f"to {number(fit.high)}, fitted on steps {fit.first_step} to {fit.last_step}, "
                f"R\u00b2 {number(fit.r2)}",
            ]
        )
    if run.fate is not None:
        rows.append(["its fate over the whole run", fate_told(run.fate)])
    rows += [[label, value] for label, value in _endings(run)]
    if run.predictions is not None:
        rows.append(["predictions where it is evaluated", of_predictions(run.predictions)])
    elif run.no_predictions is not None:
        rows.append(["predictions", f"not compared\n{one_line(run.no_predictions, 600)}"])
    if run.no_conditions is not None and not run.conditions:
        rows.append(["condition number", f"no bound\n{one_line(run.no_conditions, 600)}"])
    title = f"One changed bit, under {one_line(run.under)}" if run.under else "One changed bit"
    return Table(title, ["Question", "Answer"], rows)


def _fate(run: TwinRecord) -> str:
    if run.absorbed_step is None and run.growth is None:
        return f"no growth rate\n{one_line(run.no_growth or 'no reason was recorded', 600)}"
    return change_phrase(run).removeprefix("one changed bit ").removeprefix("was ")


def _half(run: TwinRecord) -> str:
    if run.half_step is not None:
        return f"after step {run.half_step}"
    return f"not within {plural(run.steps, 'step')}"


def _endings(run: TwinRecord) -> Iterator[tuple[str, str]]:
    """The last value of each series over all parameters, then the evaluation of both copies."""
    words: dict[str, tuple[str, Callable[[Any], str]]] = {
        "distance": ("relative distance at the end", number),
        "fraction": ("elements that differ at the end", percent),
        "max_ulp": ("largest distance at the end", lambda value: ulps(int(value))),
    }
    for name, (label, spell) in words.items():
        values = run.series.get(name)
        if values is not None and len(values):
            yield label, spell(values[-1])
    for name, value in run.evaluation.items():
        other = run.evaluation_twin.get(name)
        text = f"{number(value, 4)} in the run"
        if other is not None:
            text += f", {number(other, 4)} in the twin"
        yield one_line(name), text


def overhead(record: RunRecord) -> Table:
    """What the probes took, against the same steps without them."""
    rows = []
    parts: dict[str, RerunRecord | TwinRecord | None] = {
        "rerun": record.rerun,
        "twin": record.twin,
        "twin under the fix": record.twin_fixed,
    }
    for name, part in parts.items():
        if part is None:
            continue
        times = part.probe_seconds / part.plain_seconds if part.plain_seconds > 0 else None
        detail = (
            f"every op {plural(part.k, 'time')}"
            if isinstance(part, RerunRecord)
            else f"{_copies(part)} copies"
        )
        rows.append(
            [
                f"{name}\n{plural(part.steps, 'step')}, {detail}",
                seconds(part.probe_seconds),
                seconds(part.plain_seconds),
                ratio(times),
            ]
        )
    columns = ["Probe", "With the probe", "The same steps without", "Ratio"]
    return Table("This run's own overhead", columns, rows)


def _copies(run: TwinRecord) -> int:
    """The run, its twins and their control; twins and a control at each further step."""
    twins = max(len(run.twins), 1)
    return 1 + (twins + 1) * max(len(run.onset), 1)


def facts(record: RunRecord) -> Table:
    """What ran, where, with which versions and switches."""
    rows = [
        ["command", f"nondet-probe {one_line(record.command)}"],
        ["target", one_line(record.target)],
        ["seed", str(record.seed)],
        ["started", one_line(record.created)],
    ]
    rows += [[f"time of {one_line(part)}", seconds(took)] for part, took in record.seconds.items()]
    rows += environment(record.environment).rows
    return Table("Run", ["What", "Value"], rows)


def environment(found: Mapping[str, Any]) -> Table:
    """`nondet_probe.env.snapshot()` as rows, whatever it holds; a nested name follows its group."""
    return Table("Environment", ["What", "Value"], list(_flat(found, "")))


def _flat(found: Mapping[str, Any], group: str) -> Iterator[list[str]]:
    for name, value in found.items():
        label = f"{group}: {one_line(name)}" if group else one_line(name)
        if isinstance(value, Mapping):
            if value:
                yield from _flat(value, label)
            else:
                yield [label, "none set"]
        elif isinstance(value, list | tuple):
            yield [label, ", ".join(one_line(item) for item in value) or "none"]
        elif isinstance(value, bool):
            yield [label, "yes" if value else "no"]
        elif isinstance(value, float):
            yield [label, number(value, 6)]
        else:
            yield [label, "none" if value is None else one_line(value)]
