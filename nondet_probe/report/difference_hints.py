"""What to do next about a difference between two traces, where a command can tell more."""

from __future__ import annotations

from nondet_probe.records.difference import Root, TraceDifference
from nondet_probe.report.spell import clip

__all__ = ["next_step"]

# What differs is then an answer already: no op made it.
_ANSWERS = {"environment", "rng", "batch"}


def next_step(difference: TraceDifference) -> str | None:
    """A sentence without a full stop; None where nothing more can be had."""
    root = difference.roots[0] if difference.roots else None
    meta_a, meta_b = difference.meta_a, difference.meta_b
    if difference.equal or root is None or meta_a is None or meta_b is None:
        return None
    if _to_be_replayed(root):
        if difference.cause is None and meta_a.command is not None and meta_a.world == 1:
            folders = f"{clip(difference.a, 80)} {clip(difference.b, 80)}"
            return (
                f"nondet-probe diff {folders} --replay runs the script again up to that op and "
                "looks for the cause and a fix"
            )
        return None
    coarse = "op" not in (meta_a.level, meta_b.level)
    record = root.a or root.b
    if coarse and record is not None and record.step >= 0 and not _answered(difference, root):
        return (
            f"record both runs with --level op --steps {record.step} to see which op it is, and "
            "on which line"
        )
    return None


def _to_be_replayed(root: Root) -> bool:
    both = root.a is not None and root.b is not None
    return both and root.inputs_equal is True and root.a is not None and root.a.site.kind == "op"


def _answered(difference: TraceDifference, root: Root) -> bool:
    record = root.a or root.b
    assert record is not None, "a root is a record of one run or of both"
    site = record.site
    initial = site.kind == "parameter" and site.phase == "setup" and record.step == 0
    settings = site.kind == "optimizer" and site.phase == "optimizer"
    return difference.kind in _ANSWERS or initial or settings
