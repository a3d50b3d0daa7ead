"""Reductions whose order and rounding are known: each op has variants from one registry."""

from nondet_probe.ops.index_add import index_add, index_add_ref
from nondet_probe.ops.index_put import index, index_put, index_put_ref
from nondet_probe.ops.mean import mean, mean_ref
from nondet_probe.ops.registry import Guarantee, Variant, find, ops, variants
from nondet_probe.ops.scatter_add import scatter_add, scatter_add_ref
from nondet_probe.ops.sum import sum, sum_ref

__all__ = [
    "Guarantee",
    "Variant",
    "find",
    "index",
    "index_add",
    "index_add_ref",
    "index_put",
    "index_put_ref",
    "mean",
    "mean_ref",
    "ops",
    "scatter_add",
    "scatter_add_ref",
    "sum",
    "sum_ref",
    "variants",
]
