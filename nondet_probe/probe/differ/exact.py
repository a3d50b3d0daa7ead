"""Ops that only move, select or mark bits: no order of execution can change what they give."""

from __future__ import annotations

__all__ = ["is_exact"]

_NAMES = """
    abs alias as_strided bitwise_and bitwise_not bitwise_or bitwise_xor broadcast_to cat chunk clone
    constant_pad_nd contiguous copy copysign detach diagonal eq expand fill flip full full_like
    gather ge gt index_select le lift_fresh logical_and logical_not logical_or lt masked_fill
    masked_select narrow ne neg ones ones_like permute positive relu repeat reshape resolve_conj
    resolve_neg roll select sign slice split split_with_sizes squeeze stack t take to to_copy
    transpose tril triu unbind unfold unsafe_view unsqueeze view view_as where zero zeros zeros_like
"""
_EXACT = frozenset(_NAMES.split())


def is_exact(op: str) -> bool:
    """Whether this op ("aten.clone.default", in place or not) is one of them."""
    parts = op.split(".")
    return len(parts) > 1 and parts[0] == "aten" and parts[1].strip("_") in _EXACT
