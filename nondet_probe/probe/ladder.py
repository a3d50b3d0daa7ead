"""Climb from a step to a module to an op, by pairs of runs of one program.

A race strikes elsewhere in every run, so a pair is judged by itself: what the pairs before it
showed only says where to look first. A pair that shows nothing there is followed by a wider one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nondet_probe.probe.differ import diff_traces
from nondet_probe.records.difference import Root, TraceDifference
from nondet_probe.records.ladder import Rung
from nondet_probe.records.trace import LEVELS, SETUP, Site, TraceRecord
from nondet_probe.records.trace_reader import open_trace

__all__ = ["Asked", "Seen", "climb", "names_around", "seen"]

_GIVEN = {"environment", "rng", "batch"}
"""Kinds of records that are not computed: where one of them differs first, no op is to blame."""


class Asked(NamedTuple):
    """What both runs of a pair are to record: as in `TraceMeta`, None for all."""

    level: str
    steps: tuple[int, int] | None = None
    names: str | None = None


class Seen(NamedTuple):
    """What the two runs of a pair differ in; before: the record before the first root, in the trace
    that holds it."""

    found: TraceDifference
    before: TraceRecord | None = None


def seen(folder: Path) -> Seen:
    """Compare the traces `a` and `b` in `folder`. Raises RecordError where one cannot be read."""
    a, b = (open_trace(folder / name) for name in ("a", "b"))
    found = diff_traces(a, b)
    root = found.roots[0] if found.roots else Root(None, None, None)
    for trace, record in ((a, root.a), (b, root.b)):
        if record is not None and record.number > 0:
            return Seen(found, trace.record(record.number - 1))
    return Seen(found)


def climb(
    record: Callable[[Asked], Seen], told: Callable[[Rung], None], *, other_environment: bool
) -> TraceDifference:
    """The difference of the last pair that showed one, of the first pair where none did.

    record: runs the program twice, from its start. told: is called with each pair when it has been
    judged. other_environment: the second runs get another environment on purpose, so that it
    differs is no answer.
    """
    asked = Asked(LEVELS[0])
    answer: TraceDifference | None = None
    while True:
        seen = record(asked)
        showed = _judged(asked, seen.found)
        told(_rung(asked, seen.found, showed))
        wider = None if showed == "inside" else _wider(asked, seen.found)
        if wider is not None:
            asked = wider
            continue
        if showed == "agree":
            return seen.found if answer is None else answer
        answer = seen.found
        finer = _finer(asked, seen, other_environment)
        if finer is None:
            return answer
        asked = finer


def _judged(asked: Asked, found: TraceDifference) -> str:
    """One of `SHOWED`."""
    if not found.roots:
        return "agree"
    root = found.roots[0]
    # Inside of a module that was recorded, others may run that were not.
    if root.inputs_equal and (asked.names is None or _site(root).kind == "op"):
        return "inside"
    if asked.names is not None:
        return "outside"
    # Past the first step, all that the step before left was compared, and was the same. In the
    # first step that holds of what a model began it with, not of what an optimizer did.
    early = asked.steps is not None and _step(found) <= asked.steps[0]
    of_model = _site(root).module and _site(root).kind in {"module", "gradient"}
    return "outside" if early and not of_model else "inside"


def _wider(asked: Asked, found: TraceDifference) -> Asked | None:
    """The next pair at this level: first the whole run where it may have begun before the window,
    or not have come yet; first all names where it came in from other modules."""
    first = asked.steps[0] if asked.steps is not None else SETUP
    elsewhere = not found.roots or 0 < first >= _step(found)
    if asked.steps is not None and (elsewhere or asked.names is None):
        return asked._replace(steps=None)
    return None if asked.names is None else asked._replace(names=None)


def _finer(asked: Asked, seen: Seen, other_environment: bool) -> Asked | None:
    """The first pair at the next level; None where there is none, or it could say no more."""
    found = seen.found
    if asked.level == LEVELS[-1] or _site(found.roots[0]).kind in _GIVEN:
        return None
    if found.kind == "environment" and not other_environment:
        return None
    level = LEVELS[LEVELS.index(asked.level) + 1]
    names = names_around(found.roots[0], seen.before) if level == LEVELS[-1] else None
    return Asked(level, _window(found), names)


def _window(found: TraceDifference) -> tuple[int, int] | None:
    """Steps around the first bad one: the one before shows that it began there. None, all of them,
    where it was there at the beginning: only a recording of all holds the setup."""
    step = _step(found)
    if step == SETUP or (step == 0 and found.phase == "setup"):
        return None
    return max(step - 1, 0), step + 1


def names_around(root: Root, before: TraceRecord | None) -> str | None:
    """A regular expression for the modules in which the op of a root at level module can be; None
    where it can be anywhere.

    That is the module itself with all inside of it, and what the modules around it call by
    themselves. Of what a module was given, and of the gradient that came back to it, also the
    module of the record `before`: the op ran between the two.
    """
    site = _site(root)
    if not site.module or site.kind in {"parameter", "optimizer"}:
        return None  # an optimizer runs outside of all modules
    whole = [site.module]
    if site.kind == "module" and not root.inputs_equal:
        if before is None or not before.site.module:
            return None
        whole.append(before.site.module)
    around = {path for one in whole for path in _around(one)}
    alternatives = [rf"{re.escape(one)}(?:\.|\Z)" for one in dict.fromkeys(whole)]
    alternatives += [rf"{re.escape(one)}\Z" for one in sorted(around)]
    return f"^(?:{'|'.join(alternatives)})"


def _around(path: str) -> Iterator[str]:
    """ "a.b", "a" for "a.b.c"."""
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _rung(asked: Asked, found: TraceDifference, showed: str) -> Rung:
    return Rung(
        level=asked.level,
        steps=asked.steps,
        names=asked.names,
        folder=Path(found.a).parent.name,
        showed=showed,
        compared=found.compared,
        step=found.step,
        phase=found.phase,
        kind=found.kind,
        op=found.op,
        module=found.module,
    )


def _site(root: Root) -> Site:
    record = root.a or root.b
    assert record is not None
    return record.site


def _step(found: TraceDifference) -> int:
    return SETUP if found.step is None else found.step
