"""A page about what was found between two things: a verdict, figures, sections, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nondet_probe.report.html import template
from nondet_probe.report.keyfigures import KeyFigure
from nondet_probe.report.tables import Table

__all__ = ["Section", "render_findings"]


@dataclass(frozen=True)
class Section:
    """title; text: what it means; picture: an `<svg>` element that escapes its own texts, with its
    caption; wide: it is as wide as it has to be, and is scrolled; tables, of which the empty ones
    are left out; sentences: below all."""

    title: str
    text: str = ""
    picture: str | None = None
    caption: str = ""
    wide: bool = False
    tables: list[Table] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def render_findings(
    *,
    command: str,
    outcome: Literal["clean", "nondeterministic", "unknown"],
    outcome_name: str,
    verdict: str,
    notes: Sequence[str] = (),
    subject: str,
    figures: Sequence[KeyFigure],
    sections: Sequence[Section],
    glossary: Mapping[str, str],
) -> str:
    """The page as the text of an HTML document; the same arguments give the same bytes. command:
    which one found it, as it is typed.

    Raises UsageError when jinja2 or matplotlib is missing.
    """
    page = template("findings.html.jinja")
    from nondet_probe.report.svg import variables

    shown = []
    for section in sections:
        tables = [table for table in section.tables if table.rows]
        if tables or section.picture or section.sentences:
            shown.append({**vars(section), "tables": tables})
    return page.render(
        command=command,
        outcome=outcome,
        outcome_name=outcome_name,
        verdict=verdict,
        notes=notes,
        subject=subject,
        figures=figures,
        sections=shown,
        glossary=glossary,
        light=variables(dark=False),
        dark=variables(dark=True),
    )
