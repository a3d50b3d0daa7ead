"""The shape of what comparing two traces found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nondet_probe.records.schema import Fix
from nondet_probe.records.trace import TraceCoverage, TraceMeta, TraceRecord

__all__ = ["Cause", "Change", "Root", "StepCount", "TraceDifference"]


@dataclass
class Change:
    """What both runs say of themselves, with different values: "torch.get_num_threads"."""

    name: str
    a: Any
    b: Any


@dataclass
class Cause:
    """What executing a root's op again showed, on the tensors of a replay of run a.

    element: flat index of the first one that differed, of `elements`; ulps: its distance; text: the
    cause in words, as far as the executions prove it; tried: fixes, on that call. missing: what
    could not be got. kept: the folder with the tensors of that call, which are the user's data.
    """

    element: int | None = None
    elements: int | None = None
    ulps: int | None = None
    executions: int = 0
    differing: int = 0
    text: str | None = None
    tried: list[Fix] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    kept: str | None = None


@dataclass
class Root:
    """A record with equal inputs and another output. a, b: it in both traces (b is None where the
    second run has none, a where the first has none). inputs_equal: True where both digests of the
    inputs are the same, or nothing before it differs and all is covered (`inferred`); None where
    that cannot be told."""

    a: TraceRecord | None
    b: TraceRecord | None
    inputs_equal: bool | None
    inferred: bool = False


@dataclass
class StepCount:
    """What became of the records of one phase of one step. equal, roots, propagated: pairs of
    records; only_a, only_b: records that were not aligned."""

    step: int
    phase: str
    equal: int = 0
    roots: int = 0
    propagated: int = 0
    only_a: int = 0
    only_b: int = 0


@dataclass
class TraceDifference:
    """What `diff` says of two traces.

    equal: no record differs and all were aligned. unfinished: so it is as far as run b came, which
    broke off before its end; then `equal` is False. kind: of the first difference: "environment",
    "rng", "batch", "input" (the arguments or tensors differ without a record that explains it),
    "op", "optimizer", "buffer", "order" (records of one side that the other has not, or elsewhere).
    step, phase, op (name of the site), module, file, line, rank: where. roots: in order, the first
    one first; propagated: differing records that are no roots. compared: pairs of records.
    alignment: the method in words; not_aligned_a, not_aligned_b: records of one side only, by site
    and count, most frequent first. environment: what differs between the runs' descriptions,
    switches before all. warnings: sentences without a full stop. steps: in order of step and phase,
    empty where they were not counted. meta_a, meta_b: what the runs say of themselves.
    """

    equal: bool
    a: str
    b: str
    compared: int
    alignment: str
    kind: str | None = None
    step: int | None = None
    phase: str | None = None
    op: str | None = None
    module: str | None = None
    file: str | None = None
    line: int | None = None
    rank: int | None = None
    inputs_equal: bool | None = None
    propagated: int = 0
    roots: list[Root] = field(default_factory=list)
    # Roots beyond the first thousand, which are only counted.
    more_roots: int = 0
    not_aligned_a: dict[str, int] = field(default_factory=dict)
    not_aligned_b: dict[str, int] = field(default_factory=dict)
    environment: list[Change] = field(default_factory=list)
    coverage_a: TraceCoverage = field(default_factory=TraceCoverage)
    coverage_b: TraceCoverage = field(default_factory=TraceCoverage)
    collision_bound: float = 0.0
    cause: Cause | None = None
    warnings: list[str] = field(default_factory=list)
    steps: list[StepCount] = field(default_factory=list)
    meta_a: TraceMeta | None = None
    meta_b: TraceMeta | None = None
    unfinished: bool = False
