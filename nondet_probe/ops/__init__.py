"""Reductions whose order and rounding are known: each op has variants from one registry."""

from nondet_probe.ops.attention import attention
from nondet_probe.ops.bincount import bincount, bincount_ref
from nondet_probe.ops.cross_entropy import cross_entropy
from nondet_probe.ops.cumsum import cumsum, cumsum_ref
from nondet_probe.ops.dot import dot, dot_ref
from nondet_probe.ops.embedding import embedding, embedding_ref
from nondet_probe.ops.histogram import Histogram, histogram, histogram_ref
from nondet_probe.ops.index_add import index_add, index_add_ref
from nondet_probe.ops.index_put import index, index_put, index_put_ref
from nondet_probe.ops.layer_norm import layer_norm, rms_norm
from nondet_probe.ops.matmul import matmul, matmul_ref
from nondet_probe.ops.mean import mean, mean_ref
from nondet_probe.ops.norm import norm, norm_ref
from nondet_probe.ops.registry import Guarantee, Variant, find, ops, variants
from nondet_probe.ops.scatter_add import scatter_add, scatter_add_ref
from nondet_probe.ops.segment_sum import segment_sum, segment_sum_ref
from nondet_probe.ops.softmax import log_softmax, softmax
from nondet_probe.ops.sum import sum, sum_ref
from nondet_probe.ops.var import var, var_mean, var_mean_ref, var_ref

__all__ = [
    "Guarantee",
    "Histogram",
    "Variant",
    "attention",
    "bincount",
    "bincount_ref",
    "cross_entropy",
    "cumsum",
    "cumsum_ref",
    "dot",
    "dot_ref",
    "embedding",
    "embedding_ref",
    "find",
    "histogram",
    "histogram_ref",
    "index",
    "index_add",
    "index_add_ref",
    "index_put",
    "index_put_ref",
    "layer_norm",
    "log_softmax",
    "matmul",
    "matmul_ref",
    "mean",
    "mean_ref",
    "norm",
    "norm_ref",
    "ops",
    "rms_norm",
    "scatter_add",
    "scatter_add_ref",
    "segment_sum",
    "segment_sum_ref",
    "softmax",
    "sum",
    "sum_ref",
    "var",
    "var_mean",
    "var_mean_ref",
    "var_ref",
    "variants",
]
