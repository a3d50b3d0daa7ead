"""The rows of every table about two traces."""

from __future__ import annotations

from nondet_probe.records.difference import Root, TraceDifference
from nondet_probe.records.trace import TraceCoverage, TraceMeta, TraceRecord
from nondet_probe.report.difference_words import root_count, settings
from nondet_probe.report.spell import (
    clip,
    count,
    one_line,
    place,
    plural,
    ratio,
    seconds,
)
from nondet_probe.report.tables import Table
from nondet_probe.report.trace_words import (
    digest_phrase,
    site_phrase,
    step_phrase,
    value_phrase,
)

__all__ = [
    "cause",
    "changes",
    "cost_phrase",
    "coverage",
    "meta_rows",
    "not_aligned",
    "roots",
    "runs",
    "summary",
]

MOST = 50
"""Rows of a table that could go on for ever; the JSON has all."""


def summary(difference: TraceDifference) -> list[Table]:
    """What a terminal shows below the verdict; the page has the rest."""
    parts = [
        roots(difference, 5),
        cause(difference),
        not_aligned(difference, 5),
        changes(difference, 8),
        coverage(difference),
    ]
    return [table for table in parts if table.rows]


def roots(difference: TraceDifference, most: int = MOST) -> Table:
    """Where differences began, in order."""
    rows = [_root(root) for root in difference.roots[:most]]
    title = "Roots"
    if (more := root_count(difference) - most) > 0:
        title += f" (the first {most}; {count(more)} more)"
    columns = ["Step and phase", "What", "Source line", "Inputs", "Output"]
    return Table(title, columns, rows, frozenset({1, 2}))


def _root(root: Root) -> list[str]:
    record = root.a or root.b
    assert record is not None, "a root is a record of one run or of both"
    site = record.site
    inputs = {
        True: "the same" + ("\ninferred" if root.inferred else ""),
        False: "other ones",
        None: "not known",
    }[root.inputs_equal]
    where = one_line(site.module, 200) if site.module else ""
    # Of a backward op the line is that of the forward call; the note may say more than it does.
    line = place(site.file, site.line, parts=3) if site.file else ""
    return [
        f"{step_phrase(record.step)}\n{one_line(site.phase)}",
        site_phrase(site) + (f"\n{where}" if where else ""),
        "\n".join(text for text in (line, one_line(site.note or "")) if text) or "not known",
        inputs,
        "\n".join(
            f"{side}: {_output(of)}"
            for side, of in (("a", root.a), ("b", root.b))
            if of is not None
        ),
    ]


def _output(record: TraceRecord) -> str:
    text = digest_phrase(record.outputs)
    return text if record.value is None else f"{value_phrase(record.value)} ({text})"


def cause(difference: TraceDifference) -> Table:
    """What executing the first root again showed, and which change was tried on it."""
    found = difference.cause
    rows: list[list[str]] = []
    if found is not None:
        if found.executions:
            rows.append(
                [
                    "executed again as it was",
                    f"{count(found.differing)} of {count(found.executions)} differ",
                ]
            )
        for tried in found.tried:
            outcome = f"{'none' if tried.verified else 'some'} of {count(tried.executions)} differ"
            if tried.error is not None:
                outcome = f"could not be tried: {one_line(tried.error)}"
            elif tried.ratio is not None:
                outcome += f", {ratio(tried.ratio)} the op's time"
            rows.append([f"{one_line(tried.name)}\n{one_line(tried.how)}", outcome])
        rows += [["not known", one_line(text, 300)] for text in found.missing]
        if found.kept is not None:
            rows.append(["tensors of that call", one_line(found.kept, 300)])
    return Table("The first root's op, executed again", ["What", "Outcome"], rows)


def not_aligned(difference: TraceDifference, most: int = MOST) -> Table:
    """Records that one run has and the other has not, by their site."""
    a, b = difference.not_aligned_a, difference.not_aligned_b
    names = sorted({*a, *b}, key=lambda name: (-a.get(name, 0) - b.get(name, 0), name))
    rows = [[one_line(x), count(a.get(x, 0)), count(b.get(x, 0))] for x in names[:most]]
    if (more := len(names) - most) > 0:
        rest = [sum(found.get(name, 0) for name in names[most:]) for found in (a, b)]
        rows.append([f"{plural(more, 'other')}", count(rest[0]), count(rest[1])])
    return Table("Not aligned", ["Record", "Only in run a", "Only in run b"], rows, frozenset({0}))


def changes(difference: TraceDifference, most: int = MOST) -> Table:
    """What both runs say of themselves, where it is not the same."""
    rows = [[one_line(change.name), *settings(change)] for change in difference.environment[:most]]
    if (more := len(difference.environment) - most) > 0:
        rows.append([plural(more, "other setting"), "", ""])
    return Table("What the runs themselves differ in", ["Setting", "Run a", "Run b"], rows)


def coverage(difference: TraceDifference) -> Table:
    """What both recordings saw, and what they could not."""
    a, b = difference.coverage_a, difference.coverage_b
    rows = [["records", count(a.records), count(b.records)]]
    if any(found.views or found.allocations for found in (a, b)):
        rows += [
            ["left out: views, which compute nothing", count(a.views), count(b.views)],
            ["left out: memory without content", count(a.allocations), count(b.allocations)],
        ]
    missed = sorted({*a.not_covered, *b.not_covered}, key=lambda x: (-_missed(a, x, b), x))
    rows += [
        [
            f"not covered: {one_line(reason)}",
            count(a.not_covered.get(reason, 0)),
            count(b.not_covered.get(reason, 0)),
        ]
        for reason in missed
    ]
    if not missed:
        rows.append(["not covered", "0", "0"])
    return Table("Coverage", ["What", "Run a", "Run b"], rows)


def _missed(a: TraceCoverage, reason: str, b: TraceCoverage) -> int:
    return a.not_covered.get(reason, 0) + b.not_covered.get(reason, 0)


def runs(difference: TraceDifference) -> Table:
    """What was recorded, how, at what cost; one column a run."""
    metas = (difference.meta_a, difference.meta_b)
    rows = [["trace", one_line(difference.a), one_line(difference.b)]]
    if metas[0] is not None and metas[1] is not None:
        columns = [meta_rows(meta) for meta in (metas[0], metas[1])]
        rows += [[name, columns[0][name], columns[1][name]] for name in columns[0]]
    return Table("What was recorded", ["What", "Run a", "Run b"], rows)


def meta_rows(meta: TraceMeta) -> dict[str, str]:
    """What a trace says of itself, name by name."""
    status = one_line(meta.status)
    if meta.exit_code is not None:
        status += f", exit code {meta.exit_code}"
    if meta.failure:
        status += f"\n{one_line(meta.failure, 300)}"
    steps = "all" if meta.steps is None else f"{meta.steps[0]} to {meta.steps[1]}"
    return {
        "command": clip(" ".join(meta.command), 300) if meta.command else "from code",
        "started": one_line(meta.created),
        "status": status,
        "level": one_line(meta.level) + (", inputs and outputs" if meta.inputs else ", outputs"),
        "steps asked for": steps,
        "names asked for": one_line(meta.names) if meta.names is not None else "all",
        "rank": f"{meta.rank} of {meta.world}",
        "cost": cost_phrase(meta),
    }


def cost_phrase(meta: TraceMeta) -> str:
    """What the recording took of its steps' time, and what was expected of its level."""
    cost = meta.cost
    if cost is None:
        return "not measured"
    text = f"expected {ratio(cost.expected)} the plain step"
    plain = cost.seconds - cost.probe_seconds
    if cost.steps and plain > 0:
        took = f"{seconds(cost.probe_seconds)} of {seconds(cost.seconds)}"
        text = (
            f"{ratio(cost.seconds / plain)} the plain step, {text}\n"
            f"{took} in {plural(cost.steps, 'step')}"
        )
    return text
