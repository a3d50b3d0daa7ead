"""One op call of a run, found again by its place in a trace: kept, and executed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nondet_probe.probe.examine import examine
from nondet_probe.probe.plan import Plan
from nondet_probe.probe.recorder.keeping import keep
from nondet_probe.probe.recorder.pending import Pending
from nondet_probe.probe.replay import Call, NotComparableError, results
from nondet_probe.records.difference import Cause
from nondet_probe.records.trace import Site, Words

__all__ = ["Inspection", "Inspector", "Wanted", "keep_call"]


class Inspector(Protocol):
    """Who is told of every op call of a recording, before it and after it."""

    def begins(
        self,
        step: int,
        site: Site,
        func: Callable[..., Any],
        plan: Plan,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Call | None:
        """Before an op runs: its call, where it is to be looked at."""

    def ended(self, call: Call, site: Site, inputs: Words | Pending | None, output: Any) -> None:
        """After it ran, and was recorded. inputs: the digest of what it was given."""


@dataclass(frozen=True)
class Wanted:
    """Which record: the one of `site` in `step` that `earlier` others of that site come before.
    inputs: its digest in the trace, None where that has none."""

    step: int
    site: Site
    earlier: int
    inputs: Words | None


class Inspection:
    """Finds the call that made a wanted record, as the training runs again.

    folder: where its tensors are kept. threads: of the runs that differed, for `examine`. done:
    called once the call was looked at, inside of the op. cause: what was found; None before.
    """

    def __init__(
        self, wanted: Wanted, folder: Path, threads: Sequence[int], done: Callable[[], None]
    ) -> None:
        self._wanted = wanted
        self._folder = folder
        self._threads = threads
        self._done = done
        self._met = 0
        self.cause: Cause | None = None

    def begins(
        self,
        step: int,
        site: Site,
        func: Callable[..., Any],
        plan: Plan,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Call | None:
        wanted = self._wanted
        if self.cause is not None or step != wanted.step or site != wanted.site:
            return None
        self._met += 1
        return Call(func, plan, args, kwargs) if self._met == wanted.earlier + 1 else None

    def ended(self, call: Call, site: Site, inputs: Words | Pending | None, output: Any) -> None:
        wanted = self._wanted
        cause = self.cause = Cause()
        if wanted.inputs is not None and type(inputs) is tuple and inputs != wanted.inputs:
            cause.missing.append(
                "the replay gave the op other inputs than run a had: its training differs from "
                "that of run a before this op, so nothing is said of its cause"
            )
        else:
            self.cause = cause = examine(call, wanted.site.phase, self._threads)
            if not (wanted.inputs is not None and type(inputs) is tuple):
                cause.missing.append(
                    "whether the replay gave the op the inputs of run a: they were not digested"
                )
        keep_call(call, output, self._folder, cause)
        self._done()


def keep_call(call: Call, output: Any, folder: Path, cause: Cause) -> None:
    """Write what a call was given and gave into `folder`, and note in `cause` where, or why not."""
    try:
        gave = results(call.plan, call.args, call.kwargs, output)
    except NotComparableError:
        gave = []
    missing = keep(call, gave, folder)
    cause.missing += missing
    cause.kept = None if missing else str(folder)
