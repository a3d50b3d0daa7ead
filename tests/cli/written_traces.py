"""Traces written by hand with the writer, equal or with one planted difference."""

from __future__ import annotations

from pathlib import Path

from nondet_probe.bits import DIGEST_FORMAT
from nondet_probe.records.trace import Site, TraceCost, TraceCoverage, TraceMeta
from nondet_probe.records.trace_writer import TraceWriter

__all__ = ["GELU", "made"]

GELU = Site("forward", "op", "aten.gelu.default", "<script>alert(1)</script>", "it's.py", 12)
SITES = [
    Site("data", "rng", "torch cpu"),
    Site("data", "batch", "loader 0"),
    Site("forward", "op", "aten.addmm.default", "net.0", "model.py", 11),
    GELU,
    Site("forward", "op", "aten.mm.default", "net.2", "model.py", 13),
    Site("forward", "loss", "loss"),
    Site("backward", "gradient", "net.0.weight"),
    Site("state", "parameter", "net.0.weight"),
]


def meta(**changes: object) -> TraceMeta:
    values = {
        "level": "op",
        "inputs": True,
        "command": ["train.py"],
        "created": "2026-01-02T03:04:05+00:00",
        "environment": {"switches": {"torch.get_num_threads": 2}, "machine": {"cpu": "a CPU"}},
        "digest_format": DIGEST_FORMAT,
        "status": "complete",
        "coverage": TraceCoverage(0, 3, 1, {"a captured graph": 2}),
        "cost": TraceCost(1.45, 4, 2.0, 0.5),
    }
    return TraceMeta(**(values | changes))  # type: ignore[arg-type]


def made(
    directory: Path,
    *,
    steps: int = 4,
    differs: tuple[int, Site] | None = None,
    without: tuple[int, Site] | None = None,
    extra: Site | None = None,
    **changes: object,
) -> Path:
    """A trace of `steps` steps. differs: (step, site) whose output is another one, and with it the
    inputs and outputs of all that follows but generators and batches. without: a record left out.
    extra: of a site that comes last in each step.
    """
    writer = TraceWriter(directory, meta(**changes))
    seen = 0  # 1 once something differed
    for step in range(steps):
        for place, site in enumerate(SITES if extra is None else [*SITES, extra]):
            if without == (step, site):
                continue
            fresh = site.kind in {"rng", "batch"}
            inputs = None if fresh else (step * 100 + place, seen)
            if differs == (step, site):
                seen = 1
            outputs = ((step * 100 + place + 1 << 52) + (0 if fresh else seen << 20), 0)
            value = 2.0 / (step + 1) + seen * 1e-12 if site.kind == "loss" else None
            writer.add(step, writer.site(site), inputs, outputs, value)
        writer.flush()
    writer.close()
    return directory
