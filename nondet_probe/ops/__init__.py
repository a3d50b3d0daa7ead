"""Reductions whose order and rounding are known: each op has variants from one registry."""

from nondet_probe.ops.cumsum import cumsum, cumsum_ref
from nondet_probe.ops.dot import dot, dot_ref
from nondet_probe.ops.mean import mean, mean_ref
from nondet_probe.ops.norm import norm, norm_ref
from nondet_probe.ops.registry import Guarantee, Variant, find, ops, variants
from nondet_probe.ops.sum import sum, sum_ref
from nondet_probe.ops.var import var, var_mean, var_mean_ref, var_ref

__all__ = [
    "Guarantee",
    "Variant",
    "cumsum",
    "cumsum_ref",
    "dot",
    "dot_ref",
    "find",
    "mean",
    "mean_ref",
    "norm",
    "norm_ref",
    "ops",
    "sum",
    "sum_ref",
    "var",
    "var_mean",
    "var_mean_ref",
    "var_ref",
    "variants",
]
