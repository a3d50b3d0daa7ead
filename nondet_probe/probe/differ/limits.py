"""What the reader of a difference must know about how far it can be trusted, in words."""

from __future__ import annotations

from nondet_probe.probe.differ.exact import is_exact
from nondet_probe.probe.differ.pairs import Pairs
from nondet_probe.records.difference import Root

__all__ = ["limits"]


def limits(pairs: Pairs, first: Root) -> list[str]:
    """Sentences without a full stop."""
    told = []
    record = first.a or first.b
    assert record is not None
    site = record.site
    both = first.a is not None and first.b is not None
    if both and site.kind == "op" and first.inputs_equal is not False and is_exact(site.name):
        told.append(
            f"{site.name} only moves or selects bits, so it is not what made them differ: look at "
            "what wrote its inputs just before, in a kernel that does not pass through PyTorch's "
            "dispatcher or that was not waited for"
        )
    elif both and site.kind == "op" and first.inputs_equal is False:
        told.append(
            f"no record shows where {site.name} has its other tensors or arguments from: it may be "
            "a number or data that the program itself made or read, or memory that was written "
            "where this recording does not see (through NumPy, by a kernel outside of PyTorch's "
            "dispatcher, by another thread)"
        )
    if site.kind == "collective":
        told.append(
            "a collective gives what all ranks sent: compare the traces of the other ranks too"
        )
    if not (pairs.a.meta.inputs and pairs.b.meta.inputs) and both:
        told.append(
            "the inputs of calls were not digested in both runs: a second cause cannot be told "
            "from what follows from the first, and counts as propagated"
        )
    if pairs.alignment.moved and pairs.differ.any():
        told.append("some records stand in another order in run b, and were paired all the same")
    return told
