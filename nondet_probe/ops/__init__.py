"""Reductions whose order and rounding are known: each op has variants from one registry."""

from nondet_probe.ops.mean import mean, mean_ref
from nondet_probe.ops.registry import Guarantee, Variant, find, ops, variants
from nondet_probe.ops.sum import sum, sum_ref

__all__ = [
    "Guarantee",
    "Variant",
    "find",
    "mean",
    "mean_ref",
    "ops",
    "sum",
    "sum_ref",
    "variants",
]
