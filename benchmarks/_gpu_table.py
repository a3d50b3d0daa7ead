"""The rows of a run on a GPU as a Markdown page. Standard library only."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from _gpu_goals import GOALS, SIZES, Goal
from _gpu_parts import FAILED, NOT_HERE, PASSED, UNFINISHED, Note

__all__ = ["NOT_YET", "bounds_table", "page", "read_rows"]

NOT_YET = "not yet measured"

Row = Mapping[str, str]

_WORDS = {
    PASSED: "passed",
    FAILED: "**failed**",
    NOT_HERE: "not possible here",
    UNFINISHED: "not finished in its time",
}


def read_rows(file: Path) -> list[Row]:
    """Of the file's last commit: an older state of the sources says nothing of this one."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        rows: list[Row] = list(csv.DictReader(opened))
    return [row for row in rows if row["commit"] == rows[-1]["commit"]]


def page(gpu: str, date: str, rows: Sequence[Row], parts: Mapping[str, Note]) -> str:
    """Everything that was found; what was not is said where it would stand."""
    lines = [f"# {gpu}, {date}", "", *_where(rows), "## What was run", ""]
    lines += _of_parts(parts)
    lines += ["", "## Bounds", "", *bounds_table(rows), ""]
    lines += ["## CUB's answers and ours", "", *_answers(rows), ""]
    lines += ["## Times and rates", "", *_times(rows), ""]
    return "\n".join(lines)


def _where(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["Nothing was measured.", ""]
    last = rows[-1]
    said = f"{last['device']}; {last['cpu']}; torch {last['torch']}, nondet_probe "
    return [
        f"{said}{last['nondet_probe']}, commit {last['commit']}, {last['utc']}.",
        "",
        "Each call is timed by CUDA events, after a read of four times the second-level cache; "
        "what is compared takes turns in one process. Medians, with quartiles in brackets. A bound "
        "that was missed is printed bold.",
        "",
    ]


def _of_parts(parts: Mapping[str, Note]) -> list[str]:
    if not parts:
        return ["Nothing."]
    lines = ["| part | outcome | seconds |", "| - | - | - |"]
    lines += [
        f"| {name} | {_WORDS[note.outcome]} | {note.seconds:.0f} |" for name, note in parts.items()
    ]
    for name, note in parts.items():
        if note.said:
            lines += ["", f"{name}:", "", *(f"- {_cell(one)}" for one in note.said)]
    return lines


def bounds_table(rows: Sequence[Row]) -> list[str]:
    """All goals, by size; where there is no row, that it is not yet measured."""
    lines = [f"| measure | at least | aim | {' | '.join(SIZES)} |", "| - | - | - | - | - |"]
    for goal in GOALS:
        cells = [_found(rows, goal, size) for size in SIZES]
        bounds = [_number(goal.at_least), _number(goal.aim)]
        lines.append(f"| {goal.measure} | {' | '.join([*bounds, *cells])} |")
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _found(rows: Sequence[Row], goal: Goal, size: str) -> str:
    """The last row that there is; or its reason for having no figure."""
    wanted = (goal.op, goal.dtype, goal.provider, goal.metric)
    for row in reversed(rows):
        if (row["op"], row["dtype"], row["provider"], row["metric"]) != wanted:
            continue
        of, _, why = row["note"].partition(": ")
        if of != size:
            continue
        if not row["median"]:
            return _cell(f"not measured: {why}")
        median = float(row["median"])
        text = f"{median:.2f}"
        if goal.at_least is not None and median < goal.at_least:
            text = f"**{text}**"
        return f"{text} ({float(row['q25']):.2f} to {float(row['q75']):.2f})"
    return NOT_YET


def _answers(rows: Sequence[Row]) -> list[str]:
    """One line an input: the sum, and how many different ones orders of the addends gave."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    for row in rows:
        if row["metric"] in ("answer", "answers"):
            name, _, why = row["note"].partition(": ")
            text = row["median"] or f"not measured: {why}"
            found.setdefault(name, {})[row["provider"], row["metric"]] = text
    if not found:
        return [NOT_YET.capitalize() + "."]
    lines = [
        "| added up | `exact` | its different sums | CUB `gpu_to_gpu` | its different sums |",
        "| - | - | - | - | - |",
    ]
    keys = [(who, what) for who in ("exact", "CUB gpu_to_gpu") for what in ("answer", "answers")]
    for name, of in found.items():
        lines.append(f"| {name} | {' | '.join(_cell(of.get(key, '')) for key in keys)} |")
    return lines


def _times(rows: Iterable[Row]) -> list[str]:
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        if row["metric"] in ("time", "rate"):
            size, _, why = row["note"].partition(": ")
            key = (row["op"], row["dtype"], size, row["provider"])
            figure = row["median"] and f"{float(row['median']) * _SCALE[row['metric']]:.4g}"
            found.setdefault(key, {})[row["metric"]] = figure or f"not measured: {why}"
    if not found:
        return [NOT_YET.capitalize() + "."]
    lines = ["| op | dtype | size | provider | µs | GB/s |", "| - | - | - | - | - | - |"]
    for key, of in found.items():
        figures = [_cell(of.get(metric, "")) for metric in ("time", "rate")]
        lines.append(f"| {' | '.join([*key, *figures])} |")
    return lines


_SCALE = {"time": 1e6, "rate": 1.0}


def _cell(text: str) -> str:
    """On one line and without what would end a cell."""
    return " ".join(text.split()).replace("|", "/")
