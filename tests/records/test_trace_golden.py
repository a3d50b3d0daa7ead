"""One trace of each released version of the format is kept: it is read, and written, for ever."""

from __future__ import annotations

from pathlib import Path

from nondet_probe.bits import DIGEST_FORMAT
from nondet_probe.records.trace import (
    KINDS,
    PHASES,
    SETUP,
    Site,
    TraceCost,
    TraceCoverage,
    TraceMeta,
    TraceRecord,
)
from nondet_probe.records.trace_file import database_name
from nondet_probe.records.trace_reader import open_trace
from nondet_probe.records.trace_writer import TraceWriter

GOLDEN = Path(__file__).parents[1] / "golden" / "traces" / "v1"
# Where SQLite writes the number of its own version.
LIBRARY = slice(96, 100)

META = TraceMeta(
    level="op",
    inputs=True,
    command=["train.py", "--lr", "0.1"],
    created="2026-01-01T00:00:00+00:00",
    environment={"switches": {"torch.get_num_threads": 2}, "machine": {"cpu": "x"}},
    digest_format=DIGEST_FORMAT,
    names="^net",
    steps=(0, 2),
    status="failed",
    failure="Überlauf",
    exit_code=3,
    coverage=TraceCoverage(66, 7, 8, {"ops on another thread": 9}),
    cost=TraceCost(1.4, 3, 0.25, 0.05),
    caveats=["a step was cut short"],
    idle=["python"],
)


def records() -> list[TraceRecord]:
    """Every kind in every phase, at several steps, with and without each field."""
    sites = [
        Site(phase, kind, f"{kind}.naïve", *where)
        for phase in PHASES
        for kind in KINDS
        for where in [
            (None, None, None, None) if kind == "rng" else ("net", "m.py", 3, f"a {kind}")
        ]
    ]
    found = []
    for number, site in enumerate(sites):
        inputs = None if number % 3 == 0 else (number - 9, (number - 33) << 57)
        outputs = None if number % 5 == 0 else (-(number << 55), -1 - number)
        value = number / 8 if site.kind == "loss" else None
        found.append(TraceRecord(number, number // 20 + SETUP, site, inputs, outputs, value))
    return found


def write(directory: Path) -> None:
    writer = TraceWriter(directory, META)
    for record in records():
        writer.add(
            record.step, writer.site(record.site), record.inputs, record.outputs, record.value
        )
    writer.close()


def test_the_golden_trace_is_read() -> None:
    trace = open_trace(GOLDEN)
    assert list(trace.records()) == records()
    assert trace.meta == META


def test_it_is_written_today_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "run")
    for name in ("meta.json", database_name(0)):
        kept, fresh = ((folder / name).read_bytes() for folder in (GOLDEN, tmp_path / "run"))
        if name == database_name(0):
            kept, fresh = (
                content[: LIBRARY.start] + content[LIBRARY.stop :] for content in (kept, fresh)
            )
        else:
            # The SHA-256 of the database depends on that number too.
            kept, fresh = (b"\n".join(content.split(b"\n")[4:]) for content in (kept, fresh))
        assert kept == fresh


if __name__ == "__main__":
    # Once for each version of the format, before it is released.
    write(GOLDEN)
