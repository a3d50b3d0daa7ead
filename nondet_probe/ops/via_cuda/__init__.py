"""Tensors on their way into the kernels for GPUs, `nondet_probe._cuda`; the only place in `ops`
that imports it. The functions are those of `via_c`, for tensors on one CUDA device.

Everything runs on the device's current stream and waits for nothing, but where indices are checked.
`threads` means nothing on a GPU: UsageError when it is given.
"""

from nondet_probe.ops.via_cuda.rows import (
    cross_entropy,
    cross_entropy_backward,
    layer_norm,
    layer_norm_backward,
    softmax,
    softmax_backward,
    var_mean,
)
from nondet_probe.ops.via_cuda.sums import sum_all, sum_over

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "layer_norm",
    "layer_norm_backward",
    "softmax",
    "softmax_backward",
    "sum_all",
    "sum_over",
    "var_mean",
]
