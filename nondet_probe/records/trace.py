"""The shape of a trace: the ordered digests of one run, as its writer, reader and differ see it.

A record says what one call, module, batch, generator or tensor was made of, as digests; a site says
which one it was, in words that are the same in every run of the program. Steps count from 0; -1 is
the setup, all that comes before the first batch and the first forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nondet_probe.records.fault import Injection

__all__ = [
    "KINDS",
    "LEVELS",
    "PHASES",
    "SETUP",
    "Site",
    "TraceCost",
    "TraceCoverage",
    "TraceMeta",
    "TraceRecord",
    "Words",
]

LEVELS = ("step", "module", "op")
"""What is recorded, coarsest first; each holds all that the one before it does."""

PHASES = ("setup", "data", "forward", "backward", "optimizer", "state")
"""Where in a step: data is the drawing of a batch; state what the step left behind."""

KINDS = (
    "environment",  # the switches, where they are no more what they were
    "rng",  # the state of a random generator, or the seeds of a loader's workers
    "batch",  # a batch, with the indices of its samples as its inputs
    "op",  # a call that reached the dispatcher
    "module",  # the forward of a module, or the gradient that came back to it
    "loss",
    "gradient",  # of a parameter, or the norm of all
    "parameter",
    "buffer",
    "optimizer",  # the optimizer's state of a parameter, and its settings
    "collective",
)

SETUP = -1
"""The step of what comes before the first one."""

Words = tuple[int, int]
"""A digest as two signed 64-bit numbers: the first and the last 16 of its hex digits."""


class Site(NamedTuple):
    """phase, kind: of PHASES and KINDS. name: of the op ("aten.add.Tensor"), the parameter
    ("conv.bias"), generator ("torch cpu"), loader ("loader 0") or class of the module. module: path
    of the module, "" the model itself, None outside of any. file, line: the user's source, None
    where not known. note: what to show in place of the line, such as "gradient of conv.bias"."""

    phase: str
    kind: str
    name: str
    module: str | None = None
    file: str | None = None
    line: int | None = None
    note: str | None = None


class TraceRecord(NamedTuple):
    """One record. number: its place in the trace, from 0. inputs, outputs: of all tensors and other
    arguments together; inputs is None where they were not digested. value: a figure to show, of a
    loss or a norm."""

    number: int
    step: int
    site: Site
    inputs: Words | None
    outputs: Words | None
    value: float | None = None


@dataclass
class TraceCoverage:
    """What the recording saw and what it could not. records: written; views, allocations: op calls
    left out because they compute nothing; not_covered: reason -> times."""

    records: int = 0
    views: int = 0
    allocations: int = 0
    not_covered: dict[str, int] = field(default_factory=dict)


@dataclass
class TraceCost:
    """expected: times the plain step, as measured for this level; seconds: of all recorded steps,
    and probe_seconds of them the recording's own."""

    expected: float
    steps: int = 0
    seconds: float = 0.0
    probe_seconds: float = 0.0


@dataclass
class TraceMeta:
    """What a trace is of. level: of LEVELS. inputs: whether ops were recorded with the digests of
    their input tensors (the other arguments always count). command: as typed, script first; None
    for a recording from code. environment: of `nondet_probe.env.snapshot()`, as the recording
    began. names: the regular expression that chose modules and parameters, None for all. steps:
    (first, last) asked for, None for all. digest_format: of `nondet_probe.bits`. rank, world: of
    the process, 0 and 1 outside of a group.
    status: "running", "complete", "failed" or "stopped" by this package before its end (failure
    says why). exit_code: of the script.
    created: UTC, ISO 8601. holds_tensors: whether tensors of the user lie beside the trace.
    caveats: sentences that the reader must know, without a full stop. idle: names of generators
    from which nothing was drawn from the recording's beginning to its end. injected: what was
    changed on purpose, None in a plain run.
    """

    level: str
    inputs: bool
    command: list[str] | None
    created: str
    environment: dict[str, Any]
    digest_format: str
    names: str | None = None
    steps: tuple[int, int] | None = None
    rank: int = 0
    world: int = 1
    status: str = "running"
    failure: str | None = None
    exit_code: int | None = None
    holds_tensors: bool = False
    coverage: TraceCoverage = field(default_factory=TraceCoverage)
    cost: TraceCost | None = None
    caveats: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    injected: Injection | None = None
