"""Reductions whose order and rounding are known: each op has variants from one registry."""

from nondet_probe.ops.matmul import matmul, matmul_ref
from nondet_probe.ops.mean import mean, mean_ref
from nondet_probe.ops.registry import Guarantee, Variant, find, ops, variants
from nondet_probe.ops.sum import sum, sum_ref

__all__ = [
    "Guarantee",
    "Variant",
    "find",
    "matmul",
    "matmul_ref",
    "mean",
    "mean_ref",
    "ops",
    "sum",
    "sum_ref",
    "variants",
]
