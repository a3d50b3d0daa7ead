"""Reductions whose order and rounding are known: each op has variants from one registry."""

from nondet_probe.ops.cross_entropy import cross_entropy
from nondet_probe.ops.layer_norm import layer_norm, rms_norm
from nondet_probe.ops.registry import Guarantee, Variant, find, ops, variants
from nondet_probe.ops.softmax import log_softmax, softmax
from nondet_probe.ops.sum import sum, sum_ref

__all__ = [
    "Guarantee",
    "Variant",
    "cross_entropy",
    "find",
    "layer_norm",
    "log_softmax",
    "ops",
    "rms_norm",
    "softmax",
    "sum",
    "sum_ref",
    "variants",
]
