"""`against`: a recording compared with a trace as it is made, which ends where the two differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nondet_probe.bits import DIGEST_FORMAT
from nondet_probe.errors import RecordError, UsageError
from nondet_probe.probe.differ import diff_traces
from nondet_probe.probe.differ.environment import thread_counts
from nondet_probe.probe.examine import examine
from nondet_probe.probe.plan import Plan
from nondet_probe.probe.recorder.along import Along
from nondet_probe.probe.recorder.inspection import keep_call
from nondet_probe.probe.recorder.pending import Pending
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.replay import Call
from nondet_probe.records.difference import Cause, Root, TraceDifference
from nondet_probe.records.trace import SETUP, Site, Words
from nondet_probe.records.trace_reader import Trace, open_trace

__all__ = ["KEPT", "Live", "Outcome", "compared", "open_reference", "sentence"]

KEPT = "difference"
"""In the run folder: the tensors of the op call that differed first."""

_MEMORY = 4 << 30
"""Bytes that the copies of what an op writes may take."""


@dataclass
class Outcome:
    """How a recording against a trace ended. until: the first step that is not whole, where it was
    stopped; None where nothing stopped it. number: of the record of the op call that was looked
    at, and what `cause` says of it."""

    until: int | None = None
    number: int | None = None
    cause: Cause | None = None


class Live:
    """Sees to it that the program is stopped at the first difference; also in the dispatch mode,
    as an `Inspector`.

    A call that was given the same and gives something else stops it at once, and is executed again
    first, on threads and at the reference's number of them. Any other difference stops it when its
    step is over: the records of the rest of the step say what it is. folder: where the tensors of
    the call go. stopping: raises.
    """

    def __init__(self, along: Along, sink: Sink, folder: Path, stopping: Callable[[], None]):
        self.outcome = Outcome()
        self._along = along
        self._sink = sink
        self._folder = folder
        self._stopping = stopping
        self._records = 0
        sink.when_written(self._step_written)

    def begins(
        self,
        step: int,
        site: Site,
        func: Callable[..., Any],
        plan: Plan,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Call | None:
        self._records = self._along.records
        try:
            return Call(func, plan, args, kwargs, memory=_MEMORY)
        except Exception:
            # It is compared all the same, when the step is over; only not executed again.
            return None

    def ended(self, call: Call, site: Site, inputs: Words | Pending | None, output: Any) -> None:
        along = self._along
        if along.records != self._records + 1 or not along.suspect() or not along.is_first():
            return  # not written yet, as what is on a device; or nothing differs; or more than this
        start = time.perf_counter()
        cause = examine(call, site.phase, thread_counts(along.reference.meta))
        keep_call(call, output, self._folder, cause)
        self._sink.not_counted(time.perf_counter() - start)
        self.outcome = Outcome(self._sink.step, along.records - 1, cause)
        self._stop()

    def _step_written(self, step: int) -> None:
        root = self._along.first(step)
        if root is None:
            return
        self.outcome = Outcome(step + 1)
        if _looked_for(root):
            self.outcome.cause = Cause(
                missing=[
                    "the cause: that the op differs was known only when its step was over (its "
                    "digests were on a device, or what it writes was too large to be copied); "
                    "nondet-probe diff --replay executes it again"
                ]
            )
        self._stop()

    def _stop(self) -> None:
        meta = self._along.meta
        cause = self.outcome.cause
        meta.holds_tensors = cause is not None and cause.kept is not None
        meta.status = "stopped"
        meta.failure = f"it differs from {self._along.reference.directory.name}"
        self._sink.stop(self._stopping)


def open_reference(path: Path, *, level: str, inputs: bool, rank: int = 0, world: int = 1) -> Trace:
    """The trace that a recording of this kind is to be compared with. UsageError where there is
    none, or where it is of another kind: then nothing could be compared as it comes."""
    try:
        trace = open_trace(path, rank)
    except RecordError as error:
        raise UsageError(f"against: {error}") from error
    meta = trace.meta
    if meta.level != level or (level == "op" and meta.inputs != inputs):
        raise UsageError(
            f"against: {path} was recorded {_kind(meta.level, meta.inputs)}, and this would be "
            f"{_kind(level, inputs)}: record as it was, or compare two traces with nondet-probe "
            "diff, which leaves out what only one of them holds"
        )
    if meta.world != world:
        raise UsageError(
            f"against: {path} is of {meta.world} process{'es' * (meta.world != 1)}, and this is "
            f"one of {world}"
        )
    if meta.digest_format != DIGEST_FORMAT:
        raise UsageError(
            f"against: {path} has digests of format {meta.digest_format!r}, not "
            f"{DIGEST_FORMAT!r}: record it again"
        )
    if not len(trace):
        raise UsageError(f"against: {path} holds no record: there is nothing to compare with")
    return trace


def compared(reference: Trace, run: Trace, outcome: Outcome) -> TraceDifference:
    """What `diff` says of both, and of the call that was looked at. What either has after the
    other one's end is left out, unless the run came to its end before the reference did. A run that
    broke off is not called equal."""
    ends = [int(of.arrays.step.max()) if len(of) else None for of in (reference, run)]
    until = outcome.until
    if until is None and (run.meta.status != "complete" or run.meta.exit_code):
        until = ends[1]
    found = diff_traces(reference, run, (ends[0], until))
    if found.equal and until is not None:
        found.equal, found.unfinished = False, True
    root = found.roots[0] if found.roots else None
    cause = outcome.cause
    if cause is not None and cause.kept is not None:
        # As the folder is called here, which is not how its writer called it.
        cause = replace(cause, kept=str(run.directory / KEPT))
    if cause is not None and outcome.number is not None:
        number = root.b.number if root is not None and root.b is not None else None
        if number != outcome.number:
            cause = Cause(
                kept=cause.kept,
                missing=["the cause: what was executed again was a later call of an op"],
            )
    found.cause = cause
    return found


def sentence(found: TraceDifference) -> str:
    """Where a recording and its reference part, for an error. The report has more words."""
    if not found.roots:
        return f"{found.b} and {found.a} hold no two records that could be compared"
    where = "setup" if found.step == SETUP else f"step {found.step}"
    phase = f", {found.phase}" if found.phase not in (None, "setup") else ""
    line = f" ({found.file}:{found.line})" if found.file is not None else ""
    module = f" in {found.module}" if found.module else ""
    given = {True: ", given the same inputs,", False: ", given other inputs,", None: ""}
    what = f"{found.op}{module}{line}{given[found.inputs_equal]} is not what it was"
    if found.roots[0].a is None or found.roots[0].b is None:
        what = f"only one of the two has {found.op}{module}{line}"
    return f"{found.b} differs from {found.a}: {where}{phase}: {what}"


def _looked_for(root: Root) -> bool:
    """Whether this is what executing an op again is for."""
    return root.inputs_equal is True and root.b is not None and root.b.site.kind == "op"


def _kind(level: str, inputs: bool) -> str:
    of_op = ", inputs and outputs" if inputs else ", outputs only"
    return f"at level {level}{of_op if level == 'op' else ''}"
