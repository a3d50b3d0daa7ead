"""Two files of state: what differs between them, in a sentence, tables and one HTML file."""

from __future__ import annotations

from typing import Literal

from nondet_probe.records.state_difference import LeafDifference, StateDifference
from nondet_probe.report.explain import GLOSSARY
from nondet_probe.report.findings import Section, render_findings
from nondet_probe.report.keyfigures import KeyFigure
from nondet_probe.report.share_bars import share_bars
from nondet_probe.report.spell import clip, count, one_line, percent, plural, ulps
from nondet_probe.report.tables import Table

__all__ = [
    "leaves_table",
    "render_states",
    "state_limits",
    "states_summary",
    "states_verdict",
    "uncovered_table",
]

MOST = 200
"""Rows of a table; the JSON has all."""

_KINDS = {
    "bits": "bits",
    "dtype": "another dtype",
    "shape": "another shape",
    "value": "another value",
    "type": "another type",
    "only_a": "only in a",
    "only_b": "only in b",
}

_WORDS = {
    "element": "one number of a tensor",
    "share": "elements with at least one differing bit, of all elements of that tensor",
    "first": "in row-major order, as the tensor is indexed",
}


def states_verdict(found: StateDifference) -> str:
    """What a reader of nothing else needs."""
    looked = f"{plural(found.tensors, 'tensor')} and {plural(found.values, 'plain value')}"
    missed = plural(len(found.not_covered), "tensor or value", "tensors or values")
    if found.equal:
        return f"Equal: {looked} have the same bits."
    if not found.differences:
        return f"No verdict: {looked} have the same bits, but {missed} could not be compared."
    first = found.differences[0]
    places = f"{plural(len(found.differences), 'place')} of {looked} differ"
    if len(found.differences) == 1:
        places = f"1 place of {looked} differs"
    text = f"{places}: first {_told(first)}"
    if found.not_covered:
        text += f"; {missed} could not be compared"
    return text + "."


def _told(first: LeafDifference) -> str:
    name = clip(first.name, 80)
    if first.kind == "bits":
        share = percent(first.different / first.elements)
        far = f", at most {ulps(first.max_ulp)} apart" if first.max_ulp is not None else ""
        return f"{name}, in {share} of its elements{far}"
    if first.kind in {"only_a", "only_b"}:
        return f"{name}, which is {_KINDS[first.kind]}"
    return f"{name}, which is {one_line(first.a, 60)} in a and {one_line(first.b, 60)} in b"


def states_summary(found: StateDifference) -> list[Table]:
    """What a terminal shows below the verdict."""
    return [table for table in (leaves_table(found, 20), uncovered_table(found)) if table.rows]


def leaves_table(found: StateDifference, most: int = MOST) -> Table:
    """The tensors and values that differ, in the order of file a."""
    rows = [_row(leaf) for leaf in found.differences[:most]]
    title = "What differs"
    if (more := len(found.differences) - most) > 0:
        title += f" (the first {most}; {count(more)} more)"
    columns = ["Name", "What", "Share of elements", "Largest distance", "First element"]
    return Table(title, columns, rows, frozenset({0}))


def _row(leaf: LeafDifference) -> list[str]:
    name = one_line(leaf.name, 300)
    if leaf.kind == "bits":
        place = "[" + ", ".join(str(i) for i in leaf.first or []) + "]"
        return [
            f"{name}\n{one_line(leaf.a)}",
            _KINDS[leaf.kind],
            f"{percent(leaf.different / leaf.elements)}\n{count(leaf.different)} of "
            f"{count(leaf.elements)}",
            ulps(leaf.max_ulp),
            f"{place}\na: {leaf.first_a}\nb: {leaf.first_b}",
        ]
    sides = [f"{run}: {one_line(text)}" for run, text in (("a", leaf.a), ("b", leaf.b)) if text]
    return [name, "\n".join([_KINDS[leaf.kind], *sides]), "", "", ""]


def uncovered_table(found: StateDifference, most: int = MOST) -> Table:
    """What could not be compared, and why."""
    rows = [[one_line(name), one_line(why)] for name, why in list(found.not_covered.items())[:most]]
    if (more := len(found.not_covered) - most) > 0:
        rows.append([plural(more, "other"), ""])
    return Table("Not covered", ["Name", "Why"], rows)


def state_limits(found: StateDifference) -> list[str]:
    """How far to trust it, one sentence each."""
    return [
        f"{plural(found.tensors, 'tensor')}, {plural(found.values, 'plain value')} compared; "
        f"{count(len(found.not_covered))} not covered.",
        "Tensors were compared bit by bit. No digest was involved, so there is no chance that two "
        "different ones passed as equal (collision probability 0).",
        "The order of names, strides, devices and requires_grad were not compared.",
    ]


def render_states(found: StateDifference) -> str:
    """The page as the text of an HTML document; the same difference gives the same bytes.

    Raises UsageError when jinja2 or matplotlib is missing.
    """
    outcome: Literal["clean", "nondeterministic", "unknown"] = "nondeterministic"
    name = "Different"
    if not found.differences:
        outcome, name = ("clean", "Equal") if found.equal else ("unknown", "No verdict")
    figures = [
        KeyFigure("Tensors", count(found.tensors), f"{plural(found.values, 'plain value')} beside"),
        KeyFigure("Differ", count(len(found.differences)), "tensors or values"),
        KeyFigure(
            "Elements that differ",
            percent(found.different / found.elements if found.elements else 0.0),
            f"{count(found.different)} of {count(found.elements)}",
        ),
        KeyFigure("Not covered", count(len(found.not_covered)), "tensors or values"),
    ]
    return render_findings(
        command="diff",
        outcome=outcome,
        outcome_name=name,
        verdict=states_verdict(found),
        subject=f"{clip(found.a, 80)} and {clip(found.b, 80)}",
        figures=figures,
        sections=[
            Section(
                "How much of each tensor",
                picture=share_bars(found.differences, "shares"),
                caption="Share of elements with a differing bit, of the tensors that differ.",
            ),
            Section("What differs", tables=[leaves_table(found)]),
            Section("What was not covered", tables=[uncovered_table(found)]),
            Section("How far to trust it", sentences=state_limits(found)),
        ],
        glossary=_WORDS | {word: GLOSSARY[word] for word in ("bit-identical", "ulp")},
    )
