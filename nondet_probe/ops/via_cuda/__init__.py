"""Tensors on their way into the kernels for GPUs, `nondet_probe._cuda` (see `bits.device`). The
functions are those of `via_c`, for tensors on one CUDA device.

Everything runs on the device's current stream and waits for nothing, but where indices are checked.
`threads` means nothing on a GPU: UsageError when it is given.
"""

from nondet_probe.ops.via_cuda.products import cumsum, dot, matmul, norm
from nondet_probe.ops.via_cuda.sums import sum_all, sum_over

__all__ = ["cumsum", "dot", "matmul", "norm", "sum_all", "sum_over"]
