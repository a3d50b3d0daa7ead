"""What the record is in which two traces first differ, in words; made only of what is known."""

from __future__ import annotations

import re

from nondet_probe.records.difference import Cause, Root
from nondet_probe.records.trace import SETUP, Site
from nondet_probe.report.spell import clip, count, listing, one_line, ulps
from nondet_probe.report.trace_words import site_phrase, value_phrase

__all__ = ["root_phrase"]

_NOTHING_BEFORE = "and no record before it differs"


def root_phrase(root: Root, site: Site, cause: Cause | None) -> str:
    """Without a full stop. site: of the root's record; where it stands is said elsewhere."""
    words = {
        "environment": _switch,
        "rng": _generator,
        "batch": _batch,
        "parameter": _parameter,
        "gradient": _gradient,
        "optimizer": _optimizer,
    }
    if site.kind in {"op", "collective"}:
        return f"{site_phrase(site)} {_given(root)}{_found(cause)}"
    if site.kind == "module":
        # Which module it is was said before the colon.
        what = f"the {clip(site.name, 100)}" if site.phase == "forward" else site_phrase(site)
        return f"{what} {_given(root)}" if site.phase == "forward" else _differs(what, root)
    if site.kind in words:
        return words[site.kind](root, site)
    return _differs(site_phrase(site), root)


def _differs(what: str, root: Root) -> str:
    return f"{what} differs{_values(root)}, and no record before it does"


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
    return (
        f"received other inputs, {_NOTHING_BEFORE}: another number or tensor of the program's own, "
        "or one made where this recording does not see"
    )


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


def _switch(root: Root, site: Site) -> str:
    """A record of a switch says in its note what it was and what it became."""
    sides = [(run, of) for run, of in (("a", root.a), ("b", root.b)) if of is not None]
    notes = [(run, one_line(of.site.note or site.name, 120)) for run, of in sides]
    if len(notes) == 1:
        ((run, note),) = notes
        return f"before any op is to blame, a switch was set in run {run} alone ({note})"
    told = listing([f"{note} in run {run}" for run, note in notes])
    return f"before any op is to blame, a switch was set otherwise ({told})"


def _generator(root: Root, site: Site) -> str:
    name = clip(site.name, 100)
    if re.match(r"(base )?seed of ", name):
        return f"{site_phrase(site)} is another one, {_NOTHING_BEFORE}"
    if re.search(r" of worker \d+ of ", name) and _inputs_known(root) and root.inputs_equal:
        return (
            f"{site_phrase(site)} is in another state, although the seed of that worker is the "
            "same: its worker_init_fn set it otherwise"
        )
    if site.note:
        return (
            f"{site_phrase(site)} is in another state {one_line(site.note, 120)}, "
            f"{_NOTHING_BEFORE}: it was seeded otherwise, or drawn from where this recording does "
            "not see"
        )
    return f"{site_phrase(site)} is in another state, {_NOTHING_BEFORE}"


def _batch(root: Root, site: Site) -> str:
    drawn = {
        True: "holds other data, although its samples have the same indices",
        False: "is made of other samples",
        None: "differs",
    }[root.inputs_equal if _inputs_known(root) else None]
    by = f", drawn by {one_line(site.note, 40)}," if site.note else ""
    return f"the batch of {clip(site.name, 100)}{by} {drawn}, {_NOTHING_BEFORE}"


def _parameter(root: Root, site: Site) -> str:
    name = clip(site.name, 100)
    record = root.a or root.b
    step = record.step if record is not None else SETUP
    if site.phase == "setup" and step <= 0:
        return f"the initial weights differ, those of {name} first, {_NOTHING_BEFORE}"
    if site.phase == "setup":
        return (
            f"parameter {name} was another one as the step began, {_NOTHING_BEFORE}: it was "
            "changed before the step, by what was not recorded"
        )
    return (
        f"the step left other weights in {name}, and no record before it differs, so no gradient "
        "and no setting of the optimizer that was recorded: it is the optimizer's own state, or "
        "code that changes weights by hand"
    )


def _optimizer(root: Root, site: Site) -> str:
    text = _differs(site_phrase(site), root)
    if site.phase != "state":
        return text
    return (
        f"{text}, so no gradient and no setting that was recorded: it was another one before the "
        "step, or code changed it by hand"
    )


def _gradient(root: Root, site: Site) -> str:
    norm = re.match(r"gradient norm(?:, (.*))?$", site.name)
    if norm is None:
        return _differs(site_phrase(site), root)
    whose = f" of {one_line(norm[1], 40)}" if norm[1] else ""
    values = ""
    if root.a is not None and root.b is not None and None not in (root.a.value, root.b.value):
        one, other = (value_phrase(of.value or 0.0) for of in (root.a, root.b))
        values = f" (of norm {one}" + (f" and {other})" if one != other else " in both runs)")
    return f"the gradients{whose} differ{values}, and no record before them does"


def _inputs_known(root: Root) -> bool:
    return all(record is not None and record.inputs is not None for record in (root.a, root.b))
