"""Reductions whose order and rounding are known: each op has variants from one registry."""

from nondet_probe.ops.registry import Guarantee, Variant, find, ops, variants
from nondet_probe.ops.segment_sum import segment_sum, segment_sum_ref
from nondet_probe.ops.sum import sum, sum_ref

__all__ = [
    "Guarantee",
    "Variant",
    "find",
    "ops",
    "segment_sum",
    "segment_sum_ref",
    "sum",
    "sum_ref",
    "variants",
]
