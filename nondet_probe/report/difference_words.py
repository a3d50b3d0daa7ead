"""What differs between two traces, in a sentence or three; made only of what is known."""

from __future__ import annotations

from itertools import takewhile

from nondet_probe.records.difference import Cause, Change, Root, TraceDifference
from nondet_probe.report.root_words import root_phrase
from nondet_probe.report.spell import (
    clip,
    count,
    listing,
    one_line,
    place,
    plural,
    ratio,
)
from nondet_probe.report.trace_words import site_phrase, step_phrase

__all__ = [
    "change_phrase",
    "difference_verdict",
    "root_count",
    "settings",
    "unaligned",
]

_LONG = 60
"""Characters of a setting that are shown."""

_ALIKE = 1.05
"""Two times whose ratio is less than this, or more than its inverse, are called the same: that of
an op was measured with a few executions."""


def difference_verdict(difference: TraceDifference) -> str:
    """What a reader of nothing else needs: equal or not; if not, what comes first, how much follows
    from it, and the cause as far as it was found."""
    if not difference.compared and not unaligned(difference):
        return "No verdict: neither run holds a record that could be compared."
    if difference.equal or difference.unfinished:
        return _equal(difference)
    sentences = [f"{_where(difference)}: {_what(difference)}{_after(difference)}"]
    if _by_environment(difference):
        sentences = _environment(difference, sentences[0])
    return "".join(f"{text}. " for text in [*sentences, *_more(difference)]).rstrip()


def _equal(difference: TraceDifference) -> str:
    text = f"all {plural(difference.compared, 'pair')} of records have the same bits"
    if difference.unfinished:
        text = f"Not finished: {text} so far, but run b broke off before its end"
    else:
        text = f"Equal: {text}"
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
    return root_phrase(root, site, difference.cause)


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


def _changes(changes: list[Change], most: int = 3) -> str:
    shown = [change_phrase(change) for change in changes[:most]]
    if more := len(changes) - most:
        shown += [plural(more, "other setting")] if more > 0 else []
    return listing(shown)


def change_phrase(change: Change) -> str:
    """ "torch.get_num_threads (1 in a, 2 in b)"."""
    a, b = settings(change)
    return f"{one_line(change.name, 80)} ({a} in run a, {b} in run b)"


def settings(change: Change) -> tuple[str, str]:
    """Both values; of two long lines of words only what differs, and an ellipsis for the others."""
    a, b = change.a, change.b
    if not (isinstance(a, str) and isinstance(b, str)) or max(len(a), len(b)) <= _LONG:
        return setting(a), setting(b)
    one, other = a.split(" "), b.split(" ")
    first = _alike(one, other)
    last = _alike(one[first:][::-1], other[first:][::-1])
    return setting(_between(one, first, last)), setting(_between(other, first, last))


def _alike(one: list[str], other: list[str]) -> int:
    """How many words both begin with."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _between(words: list[str], first: int, last: int) -> str:
    """Without the first and last of them."""
    shown = words[first : len(words) - last]
    return " ".join(["\u2026"] * (first > 0) + shown + ["\u2026"] * (last > 0))


def setting(value: object) -> str:
    """A setting's value; None is one that a run does not have."""
    return "not set" if value is None else one_line(value, _LONG)


def _order(difference: TraceDifference, root: Root) -> str:
    text = "the runs go separate ways"
    record, side, other = (root.a, "a", "b") if root.b is None else (root.b, "b", "a")
    if record is not None and (root.a is None or root.b is None):
        text = f"run {side} has {site_phrase(record.site)} where run {other} has no such record"
    text += _counts(difference)
    if not difference.propagated and root_count(difference) == 1:
        text += "; every record that both have is equal"
    return text


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
