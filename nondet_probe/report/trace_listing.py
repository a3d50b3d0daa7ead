"""One trace as text: what it says of itself, then a line a record."""

from __future__ import annotations

from collections.abc import Iterator

from nondet_probe.records.trace import SETUP, TraceRecord
from nondet_probe.records.trace_reader import Trace
from nondet_probe.report.difference_tables import meta_rows
from nondet_probe.report.spell import clip, count, one_line, place
from nondet_probe.report.tables import Table
from nondet_probe.report.trace_words import digest_phrase, value_phrase

__all__ = ["lines", "overview"]

_WIDTHS = {"step": 6, "phase": 9, "kind": 11, "inputs": 12, "outputs": 12}


def overview(trace: Trace) -> list[Table]:
    """What was recorded, how, at what cost; what was seen and what not."""
    meta = trace.meta
    steps = trace.arrays.step
    there = steps[steps != SETUP]
    span = f"{count(there.min())} to {count(there.max())}" if len(there) else "none"
    rows = [["trace", one_line(trace.directory)], ["steps recorded", span]]
    rows += [[name, text] for name, text in meta_rows(meta).items()]
    rows += [["caveat", one_line(text, 600)] for text in meta.caveats]
    found = meta.coverage
    seen = [
        ["records", count(len(trace))],
        ["left out: views, which compute nothing", count(found.views)],
        ["left out: memory without content", count(found.allocations)],
    ]
    missed = sorted(found.not_covered.items(), key=lambda item: (-item[1], item[0]))
    seen += [[f"not covered: {one_line(reason)}", count(calls)] for reason, calls in missed]
    if not missed:
        seen.append(["not covered", "0"])
    return [
        Table("Trace", ["What", "Value"], rows),
        Table("Coverage", ["What", "Number"], seen),
    ]


def lines(trace: Trace, step: int | None = None) -> Iterator[str]:
    """A heading, then a line a record: where it is from, the first 12 hex digits of its digests,
    its value if it has one."""
    yield _line([*_WIDTHS], "name, module, line, value")
    for record in trace.records(step):
        site = record.site
        cells = [
            "setup" if record.step == SETUP else str(record.step),
            site.phase,
            site.kind,
            digest_phrase(record.inputs),
            digest_phrase(record.outputs),
        ]
        yield _line(cells, _told(record))


def _line(cells: list[str], rest: str) -> str:
    pairs = zip(cells, _WIDTHS.values(), strict=True)
    return " ".join([*(clip(cell, width).ljust(width) for cell, width in pairs), rest])


def _told(record: TraceRecord) -> str:
    site = record.site
    parts = [clip(site.name, 120)]
    if site.module is not None:
        parts.append(f"in {clip(site.module, 120) or 'the model itself'}")
    if site.file is not None:
        parts.append(f"at {place(site.file, site.line, parts=2)}")
    if site.note:
        parts.append(f"({one_line(site.note, 120)})")
    if record.value is not None:
        parts.append(f"= {value_phrase(record.value)}")
    return " ".join(parts)
