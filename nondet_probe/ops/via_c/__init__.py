"""Tensors on their way into the kernels of `nondet_probe._C`; the only place in `ops` that imports
it.

threads, everywhere: at most so many are used, None is torch.get_num_threads(). UsageError when it
is below 1 and when NONDET_PROBE_ISA names an instruction set that is not available.
"""

from nondet_probe.ops.via_c.arguments import FITS_WITH_GRADIENT, PLAIN_TENSORS, look_at
from nondet_probe.ops.via_c.groups import (
    EXACT_DIGITS,
    EXACT_LOWEST,
    bin_edges,
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
from nondet_probe.ops.via_c.products import cumsum, dot, matmul, norm, var_mean
from nondet_probe.ops.via_c.room import room
from nondet_probe.ops.via_c.rows import (
    cross_entropy,
    cross_entropy_backward,
    layer_norm,
    layer_norm_backward,
    softmax,
    softmax_backward,
)
from nondet_probe.ops.via_c.scatter import checked_indices, scatter_rows
from nondet_probe.ops.via_c.sums import sum_all, sum_over

__all__ = [
    "EXACT_DIGITS",
    "EXACT_LOWEST",
    "FITS_WITH_GRADIENT",
    "PLAIN_TENSORS",
    "bin_edges",
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
    "look_at",
    "matmul",
    "norm",
    "normalise",
    "range_of",
    "room",
    "scatter_rows",
    "segment_sum",
    "softmax",
    "softmax_backward",
    "sum_all",
    "sum_over",
    "var_mean",
    "widen",
]
