"""The only way into `nondet_probe.kernels`: one function an op, and operators of torch behind it.

Importing this needs triton; `nondet_probe.ops.backends` does it when a kernel is asked for. Each
operator is a `triton_op`: Inductor sees the kernels, not a call. docs/triton.md.
"""

from nondet_probe.ops.via_triton.attention import attention
from nondet_probe.ops.via_triton.cross_entropy import cross_entropy
from nondet_probe.ops.via_triton.layer_norm import layer_norm
from nondet_probe.ops.via_triton.matmul import matmul
from nondet_probe.ops.via_triton.scatter import index_add, scatter_add
from nondet_probe.ops.via_triton.softmax import softmax

__all__ = [
    "attention",
    "cross_entropy",
    "index_add",
    "layer_norm",
    "matmul",
    "scatter_add",
    "softmax",
]
