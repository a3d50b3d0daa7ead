"""A run record as one HTML file that needs nothing else: no request, no script."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nondet_probe.errors import UsageError
from nondet_probe.records import RunRecord, TwinRecord
from nondet_probe.report import audittables, costtables, measured, tables, twintables
from nondet_probe.report.explain import SECTIONS, audit_notes, comparison, words_used
from nondet_probe.report.keyfigures import key_figures
from nondet_probe.report.spell import clip, one_line, printable
from nondet_probe.report.words import outcome, verdict

if TYPE_CHECKING:
    import jinja2

__all__ = ["REPORT_FILE", "render", "template", "write_page", "write_report"]

REPORT_FILE = "report.html"
"""Its name in a run directory."""

_NAMES = {
    "clean": "No nondeterminism seen",
    "nondeterministic": "Nondeterministic",
    "unmet": "Not as requested",
    "priced": "Cost of determinism",
    "unknown": "No verdict",
    "failed": "Failed",
}


# In a long word, after a separator that a letter follows: no figure is torn apart.
_LONG_WORD = re.compile(r"(\S{18,})")
_BREAKS = re.compile(r"(?<=[/._])(?=[A-Za-z])")


@dataclass(frozen=True)
class _Picture:
    title: str
    svg: str
    caption: str


def write_report(record: RunRecord, path: Path) -> None:
    """Write the report of `record` to `path`, at once: a reader sees the old file or the new one.

    The same record gives the same bytes. Raises UsageError when jinja2 or matplotlib is missing.
    """
    write_page(render(record), path)


def write_page(text: str, path: Path) -> None:
    """Write a page to `path`, at once."""
    content = text.encode("utf-8")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes the file private; a report is as readable as any file the user makes.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def template(name: str) -> jinja2.Template:
    """A template of this folder. Raises UsageError when jinja2 or matplotlib is missing."""
    try:
        import jinja2
        import matplotlib  # noqa: F401  # the plots need it; say so before anything is drawn
    except ImportError as error:
        raise UsageError(
            f"the HTML report needs {error.name}: pip install 'nondet-probe[report]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template(name)


def render(record: RunRecord) -> str:
    """The report of `record` as the text of an HTML document."""
    page = template("report.html.jinja")
    from nondet_probe.report.costplot import cost_plot
    from nondet_probe.report.svg import variables

    kind = outcome(record)
    return page.render(
        record=record,
        target=clip(record.target, 70),
        created=one_line(record.created),
        failure=_long_failure(record),
        outcome=kind,
        outcome_name=_NAMES[kind],
        verdict=verdict(record),
        figures=key_figures(record),
        sections=SECTIONS,
        light=variables(dark=False),
        dark=variables(dark=True),
        tables=tables,
        audittables=audittables,
        costtables=costtables,
        twintables=twintables,
        classes=audittables.classes_of(record),
        audited=audit_notes(record),
        twins=_twins(record),
        comparison=comparison(record.rerun) if record.rerun is not None else [],
        cost_svg=cost_plot(record.cost, "cost") if record.cost is not None else None,
        glossary=words_used(record),
    )


def _long_failure(record: RunRecord) -> str:
    """The whole failure where it is more than the verdict could tell, else nothing."""
    text = printable(record.failure or "").strip()
    return text if one_line(text) != text.rstrip(".") else ""


def _breakable(text: str) -> str:
    """Escaped, with places where a long path or dotted name may go on in the next line."""
    import markupsafe

    here = markupsafe.Markup("<wbr>")
    words = _LONG_WORD.split(text)
    # Split with a group: every second piece is a long word.
    return markupsafe.Markup("").join(
        here.join(_BREAKS.split(word)) if i % 2 else word for i, word in enumerate(words)
    )


def _twins(record: RunRecord) -> list[dict[str, Any]]:
    found = []
    for key in ("twin", "twin_fixed"):
        twin: TwinRecord | None = getattr(record, key)
        if twin is not None:
            pictures = _pictures(twin, key)
            if not twin.control_identical and record.twin_fixed is not None and key == "twin":
                # The noise of the run needs no close look; the twin under the fix gets one.
                del pictures[2:]
            every = measured.tensors(twin)
            found.append({"key": key, "record": twin, "pictures": pictures, "tensors": every})
    return found


def _pictures(twin: TwinRecord, key: str) -> list[_Picture]:
    from nondet_probe.report.heatmap import heatmap_plot
    from nondet_probe.report.plots import distance_plot, loss_plot, series, share_plot
    from nondet_probe.report.twinplots import fan_plot, onset_plot

    drawn = [
        (
            "How far apart all twins are",
            fan_plot(twin, f"{key}-fan"),
            "Each faint line is a twin with another element changed; the band is the middle half "
            "of them, the thick line their median. All else below is of twin 0.",
        ),
        (
            "Does it matter when",
            onset_plot(twin, f"{key}-onset"),
            "Where the run is after its last step, by the step at which the change was made: one "
            "dot a twin, the line through their medians.",
        ),
        (
            "How far apart the run and its twin are",
            distance_plot(twin, f"{key}-distance"),
            "The vertical axis counts in powers of ten; exact zeros stand at its bottom. "
            "A straight rising line is exponential growth."
            + (" Dashed: the fit, with its 95% interval." if twin.growth is not None else ""),
        ),
        (
            "How many numbers of the model differ",
            share_plot(twin, f"{key}-share"),
            "Share of all parameters' elements with at least one differing bit.",
        ),
        (
            "What the loss shows of it",
            loss_plot(twin, f"{key}-loss"),
            "The two losses, and below how far apart they are.",
        ),
        (
            "Where the change spreads",
            heatmap_plot(twin, f"{key}-heatmap"),
            "One row a parameter, in the model's order. No colour: not one bit differs. "
            "The name in colour is the parameter that was changed."
            + ("" if np.isfinite(series(twin, "param_distance")).all() else " Grey: not finite."),
        ),
        (
            "Which part of the state differs",
            measured.kinds_plot(twin, f"{key}-kinds"),
            "The optimizer's state and the gradients are those that the step left.",
        ),
        (
            "How many floats lie between",
            measured.ulps_plot(twin, f"{key}-ulps"),
            "Each row holds the elements whose distance in ulps is that power of two or more, and "
            "less than the next; 0 is equality, \u221e beyond counting. The darker, the more "
            "elements, by powers of ten.",
        ),
    ]
    return [_Picture(title, svg, caption) for title, svg, caption in drawn if svg is not None]
