"""What differs between two traces, in a sentence or three; made only of what is known."""

from __future__ import annotations

from nondet_probe.records.difference import Cause, Change, Root, TraceDifference
from nondet_probe.records.trace import Site
from nondet_probe.report.spell import (
    clip,
    count,
    listing,
    one_line,
    place,
    plural,
    ratio,
    ulps,
)
from nondet_probe.report.trace_words import site_phrase, step_phrase, value_phrase

__all__ = [
    "change_phrase",
    "difference_verdict",
    "root_count",
    "setting",
    "unaligned",
]

_ALIKE = 1.05
"""Two times whose ratio is less than this, or more than its inverse, are called the same: that of
an op was measured with a few executions."""


def difference_verdict(difference: TraceDifference) -> str:
    """What a reader of nothing else needs: equal or not; if not, what comes first, how much follows
    from it, and the cause as far as it was found."""
    if not difference.compared and not unaligned(difference):
        return "No verdict: neither run holds a record that could be compared."
    if difference.equal:
        return _equal(difference)
    sentences = [f"{_where(difference)}: {_what(difference)}{_after(difference)}"]
    if _by_environment(difference):
        sentences = _environment(difference, sentences[0])
    return "".join(f"{text}. " for text in [*sentences, *_more(difference)]).rstrip()


def _equal(difference: TraceDifference) -> str:
    text = f"Equal: all {plural(difference.compared, 'pair')} of records have the same bits"
    caveats = []
    seen = (("a", difference.coverage_a), ("b", difference.coverage_b))
    missed = [(run, sum(found.not_covered.values())) for run, found in seen]
    if told := [f"{plural(calls, 'call')} of run {run}" for run, calls in missed if calls]:
        caveats.append(f"{listing(told)} could not be seen")
    if difference.environment:
        caveats.append(f"yet the runs differ in {_changes(difference.environment)}")
    return "; ".join([text, *caveats]) + "."


def _where(difference: TraceDifference) -> str:
    """ "Step 17, backward of encoder.pos_bias (model.py:41)"."""
    parts = []
    if difference.rank:
        parts.append(f"rank {difference.rank}")
    if difference.step is not None:
        parts.append(step_phrase(difference.step))
    if difference.phase is not None and difference.phase != "setup":
        parts.append(one_line(difference.phase, 40))
    text = ", ".join(parts) or "somewhere"
    if difference.module is not None:
        text += f" of {clip(difference.module, 80) or 'the model itself'}"
    if difference.file:
        text += f" ({place(difference.file, difference.line)})"
    return text[:1].upper() + text[1:]


def _what(difference: TraceDifference) -> str:
    """What the first difference is, without a full stop."""
    root = difference.roots[0] if difference.roots else None
    record = (root.a or root.b) if root is not None else None
    site = record.site if record is not None else None
    if site is None or root is None:
        name = one_line(difference.op or difference.kind or "a record")
        return f"{name} differs"
    alone = (root.a is None) != (root.b is None)
    if difference.kind == "order" or (alone and site.kind != "environment"):
        return _order(difference, root)
    if difference.kind == "input":
        return (
            f"{site_phrase(site)} received other inputs, and no record before it differs: what "
            "made them was not recorded"
        )
    return _of_kind(difference, root, site)


def _of_kind(difference: TraceDifference, root: Root, site: Site) -> str:
    name = clip(site.name, 100)
    if site.kind in {"op", "collective"}:
        return f"{site_phrase(site)} {_given(root)}{_found(difference.cause)}"
    if site.kind == "module" and site.phase == "forward":
        # Which module it is was said before the colon.
        return f"the {name} {_given(root)}"
    if site.kind == "environment":
        return _switch(root, site)
    if site.kind == "rng":
        other = "is another one" if "seed of " in name else "is in another state"
        return f"{site_phrase(site)} {other}, and no record before it differs"
    if site.kind == "batch":
        drawn = {
            True: "holds other data, although its samples have the same indices",
            False: "is made of other samples",
            None: "differs",
        }[root.inputs_equal if _inputs_known(root) else None]
        by = f", drawn by {one_line(site.note, 40)}," if site.note else ""
        return f"the batch of {name}{by} {drawn}, and no record before it differs"
    return f"{site_phrase(site)} differs{_values(root)}, and no record before it does"


def _given(root: Root) -> str:
    """What a call was given and what it made of it."""
    if root.inputs_equal and root.inferred:
        return (
            "gave different outputs, and nothing before it differs: its inputs, which were not "
            "digested, must have been the same"
        )
    if root.inputs_equal:
        return "received bit-identical inputs and gave different outputs"
    if root.inputs_equal is None:
        return "gave different outputs; whether its inputs were the same cannot be told"
    return "received other inputs, and no record before it differs"


def _inputs_known(root: Root) -> bool:
    return all(record is not None and record.inputs is not None for record in (root.a, root.b))


def _found(cause: Cause | None) -> str:
    """Where in the output, and by how much, as far as executing the op again showed it."""
    if cause is None or cause.element is None:
        return ""
    apart = f", {ulps(cause.ulps)}" if cause.ulps is not None else ""
    return f", first at element {count(cause.element)}{apart}"


def _values(root: Root) -> str:
    if root.a is None or root.b is None or root.a.value is None or root.b.value is None:
        return ""
    return f" ({value_phrase(root.a.value)} and {value_phrase(root.b.value)})"


def _by_environment(difference: TraceDifference) -> bool:
    """Whether what the runs were started with is told first: not so where a switch of one was set
    on the way, which is a record of its own."""
    first = difference.roots[0] if difference.roots else None
    record = (first.a or first.b) if first is not None else None
    on_the_way = record is not None and record.site.kind == "environment"
    return difference.kind == "environment" and bool(difference.environment) and not on_the_way


def _environment(difference: TraceDifference, first: str) -> list[str]:
    """What the runs were started with comes before any op; then what `first` says of it."""
    if difference.step is not None:
        first = f"It shows first in {first[:1].lower()}{first[1:]}"
    return [
        f"Before any op is to blame, the runs differ in {_changes(difference.environment)}",
        *([first] if difference.step is not None else []),
    ]


def _switch(root: Root, site: Site) -> str:
    """A record of a switch says in its note what it was and what it became."""
    sides = [(run, of) for run, of in (("a", root.a), ("b", root.b)) if of is not None]
    told = [f"{one_line(of.site.note or site.name, 120)} in run {run}" for run, of in sides]
    return f"before any op is to blame, a switch was set otherwise ({listing(told)})"


def _changes(changes: list[Change], most: int = 3) -> str:
    shown = [change_phrase(change) for change in changes[:most]]
    if more := len(changes) - most:
        shown += [plural(more, "other setting")] if more > 0 else []
    return listing(shown)


def change_phrase(change: Change) -> str:
    """ "torch.get_num_threads (1 in a, 2 in b)"."""
    return (
        f"{one_line(change.name, 80)} ({setting(change.a)} in run a, {setting(change.b)} in run b)"
    )


def setting(value: object) -> str:
    """A setting's value; None is one that a run does not have."""
    return "not set" if value is None else one_line(value, 60)


def _order(difference: TraceDifference, root: Root) -> str:
    text = "the runs go separate ways"
    record, side, other = (root.a, "a", "b") if root.b is None else (root.b, "b", "a")
    if record is not None and (root.a is None or root.b is None):
        text = f"run {side} has {site_phrase(record.site)} where run {other} has no such record"
    return text + _counts(difference)


def root_count(difference: TraceDifference) -> int:
    """All roots, also those that are only counted."""
    return len(difference.roots) + difference.more_roots


def unaligned(difference: TraceDifference) -> int:
    """Records of one run that have no counterpart in the other."""
    return sum(difference.not_aligned_a.values()) + sum(difference.not_aligned_b.values())


def _counts(difference: TraceDifference) -> str:
    only = {"a": difference.not_aligned_a, "b": difference.not_aligned_b}
    parts = [
        f"{plural(sum(found.values()), 'record')} only in run {run}"
        for run, found in only.items()
        if found
    ]
    return f"; {listing(parts)}" if parts else ""


def _after(difference: TraceDifference) -> str:
    """How much follows from the roots."""
    others = root_count(difference) - 1
    text = ""
    if difference.propagated:
        verb = "is" if difference.propagated == 1 else "are"
        of = f"it and {plural(others, 'other root')}" if others > 0 else "it"
        text = f"; {plural(difference.propagated, 'later record')} {verb} propagated from {of}"
    elif others > 0:
        text = f"; {plural(others, 'other record')} {'differs' if others == 1 else 'differ'} too"
    return text + (_counts(difference) if difference.kind != "order" else "")


def _more(difference: TraceDifference) -> list[str]:
    """The sentences after the first one, without their full stops."""
    sentences = []
    cause = difference.cause
    if cause is not None:
        if cause.text:
            sentences.append(f"Cause: {one_line(cause.text)}")
        sentences += _fixes(cause)
    if difference.environment and not _by_environment(difference):
        sentences.append(f"The runs also differ in {_changes(difference.environment)}")
    return sentences


def _fixes(cause: Cause) -> list[str]:
    """The fastest change under which the op repeated its bits, where it did not without; one thread
    only if nothing else did it, for all the rest of the training would run on it too."""
    if not cause.differing:
        return []
    good = [tried for tried in cause.tried if tried.verified and tried.executions > 1]
    if not good:
        return []
    best = min(
        good,
        key=lambda tried: (
            tried.name == "one thread",
            tried.ratio if tried.ratio is not None else 1e300,
        ),
    )
    speed = ""
    if best.ratio is not None and best.ratio > 0:
        speed = (
            f", {ratio(1 / best.ratio)} faster here"
            if best.ratio < 1 / _ALIKE
            else ", in the same time"
            if best.ratio < _ALIKE
            else f", {ratio(best.ratio)} the op's time here"
        )
    return [
        f"{one_line(best.how)} removes it (verified: 0 of {count(best.executions)} differ{speed})"
    ]
