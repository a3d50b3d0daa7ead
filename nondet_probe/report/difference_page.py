"""What differs between two traces, as one HTML file that needs nothing else."""

from __future__ import annotations

from typing import Literal

from nondet_probe.records.difference import TraceDifference
from nondet_probe.report.difference_limits import limits, notes
from nondet_probe.report.difference_strip import strip
from nondet_probe.report.difference_tables import (
    cause,
    changes,
    coverage,
    not_aligned,
    roots,
    runs,
)
from nondet_probe.report.difference_words import (
    difference_verdict,
    root_count,
    unaligned,
)
from nondet_probe.report.explain import GLOSSARY
from nondet_probe.report.findings import Section, render_findings
from nondet_probe.report.keyfigures import KeyFigure
from nondet_probe.report.spell import clip, count, one_line, plural
from nondet_probe.report.tables import Table, environment
from nondet_probe.report.trace_words import step_phrase

__all__ = ["render_difference"]

_WORDS = {
    "record": "what was written down of one op call, module, batch, random generator or tensor: "
    "digests of what went in and of what came out",
    "digest": "a fingerprint of 128 bits of a tensor's bits, dtype and shape",
    "root": "a record whose inputs are the same in both runs and whose output is not: where a "
    "difference begins",
    "propagated": "a record that differs because something before it does",
    "not aligned": "a record of one run that has no counterpart in the other",
}


def render_difference(difference: TraceDifference) -> str:
    """The page as the text of an HTML document; the same difference gives the same bytes.

    Raises UsageError when jinja2 or matplotlib is missing.
    """
    outcome: Literal["clean", "nondeterministic", "unknown"] = "nondeterministic"
    name = "Different"
    if difference.equal:
        outcome, name = "clean", "Equal"
    if not difference.compared and not unaligned(difference):
        outcome, name = "unknown", "No verdict"
    picture = strip(difference.steps, "strip")
    return render_findings(
        command="diff",
        outcome=outcome,
        outcome_name=name,
        verdict=difference_verdict(difference),
        notes=notes(difference),
        subject=f"{clip(difference.a, 80)} and {clip(difference.b, 80)}",
        figures=_figures(difference),
        sections=[
            Section(
                "The run at a glance",
                picture=picture,
                wide=True,
                caption="One rectangle a phase of a step, filled by the shares of its records; "
                "resting on one tells its figures.",
            ),
            Section(
                "Where it began",
                "Each row is a root. A record that differs only because an earlier one does is "
                "counted as propagated and not listed.",
                tables=[roots(difference), cause(difference)],
            ),
            Section(
                "What the runs differ in themselves",
                "Settings, versions and machine as each run found them; what is the same is left "
                "out.",
                tables=[changes(difference)],
            ),
            Section(
                "What could not be aligned",
                f"Records were matched {one_line(difference.alignment, 300)}.",
                tables=[not_aligned(difference)],
            ),
            Section(
                "What was seen, and how far to trust it",
                "A call that was not covered may differ without being seen here.",
                tables=[coverage(difference)],
                sentences=limits(difference),
            ),
            Section("The two runs", tables=[runs(difference), *_environments(difference)]),
        ],
        glossary=_WORDS | {word: GLOSSARY[word] for word in ("op", "bit-identical", "ulp", "step")},
    )


def _environments(difference: TraceDifference) -> list[Table]:
    """Both descriptions side by side, row by row."""
    if difference.meta_a is None or difference.meta_b is None:
        return []
    a = dict(environment(difference.meta_a.environment).rows)
    b = dict(environment(difference.meta_b.environment).rows)
    rows = [[name, a.get(name, "not there"), b.get(name, "not there")] for name in {**a, **b}]
    return [Table("Where they ran", ["What", "Run a", "Run b"], rows)]


def _figures(difference: TraceDifference) -> list[KeyFigure]:
    compared = KeyFigure(
        "Compared", count(difference.compared), "pairs of records, by their digests"
    )
    if difference.equal:
        return [compared]
    differing = root_count(difference) + difference.propagated
    figures = []
    if difference.step is not None:
        what = one_line(difference.kind or "", 40)
        figures.append(KeyFigure("First difference", step_phrase(difference.step), what))
    figures.append(
        KeyFigure(
            "Records that differ", count(differing), f"of {plural(difference.compared, 'pair')}"
        )
    )
    figures.append(KeyFigure("Roots", count(root_count(difference)), "the others follow from them"))
    figures.append(
        KeyFigure("Not aligned", count(unaligned(difference)), "records of one run only")
    )
    return figures
