"""Tensors on their way into the kernels for GPUs, `nondet_probe._cuda` (see `bits.device`). The
functions are those of `via_c`, for tensors on one CUDA device.

Everything runs on the device's current stream and waits for nothing, but where indices are checked.
`threads` means nothing on a GPU: UsageError when it is given.
"""

from nondet_probe.ops.via_cuda.groups import (
    bin_sums,
    count,
    count_bins,
    divide_rows,
    edges_beside,
    extremes,
    falling_edge,
    find_bins,
    first_bad_index,
    normalise,
    range_of,
    segment_sum,
    widen,
)
from nondet_probe.ops.via_cuda.products import cumsum, dot, matmul, norm
from nondet_probe.ops.via_cuda.rows import (
    cross_entropy,
    cross_entropy_backward,
    layer_norm,
    layer_norm_backward,
    softmax,
    softmax_backward,
    var_mean,
)
from nondet_probe.ops.via_cuda.scatter import checked_indices, scatter_rows
from nondet_probe.ops.via_cuda.sums import sum_all, sum_over

__all__ = [
    "bin_sums",
    "checked_indices",
    "count",
    "count_bins",
    "cross_entropy",
    "cross_entropy_backward",
    "cumsum",
    "divide_rows",
    "dot",
    "edges_beside",
    "extremes",
    "falling_edge",
    "find_bins",
    "first_bad_index",
    "layer_norm",
    "layer_norm_backward",
    "matmul",
    "norm",
    "normalise",
    "range_of",
    "scatter_rows",
    "segment_sum",
    "softmax",
    "softmax_backward",
    "sum_all",
    "sum_over",
    "var_mean",
    "widen",
]
