"""Row-wise ops: `layer_norm`, `rms_norm`, `softmax`, `cross_entropy`, `var`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.checks import readable
from nondet_probe.ops.rows import address, whole_rows, wide
from nondet_probe.ops.via_cuda.library import (
    launch_blocks,
    library,
    no_threads,
    not_captured,
    on_device,
    stream_of,
    workspace,
)

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "layer_norm",
    "layer_norm_backward",
    "softmax",
    "softmax_backward",
    "var_mean",
]


def _given(what: str, given: Tensor, elements: int, dtype: torch.dtype, x: Tensor) -> Tensor:
    """The elements in row-major order: so many, of this dtype, on x's device, for the kernels trust
    them. UsageError when not; only operators called past the public functions can come here with
    others."""
    if given.numel() != elements or given.dtype is not dtype:
        raise UsageError(
            f"{what} has {given.numel()} elements of {given.dtype}, "
            f"{elements} of {dtype} are needed"
        )
    if given.device != x.device:
        raise UsageError(f"{what} is on {given.device}, it is needed on {x.device}")
    return readable(given)


def _given_if(what: str, given: Tensor | None, elements: int, x: Tensor) -> Tensor | None:
    return None if given is None else _given(what, given, elements, x.dtype, x)


def layer_norm(
    centred: bool,
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    statistics: Tensor | None,
    threads: int | None,
) -> Tensor:
    """layer_norm (centred) or rms_norm of a tensor whose rows have `columns` elements.

    statistics: takes the mean and the scale of each row, (2, rows). Errors: as sum_over.
    """
    no_threads(threads)
    x, rows = readable(x), whole_rows(x, columns)
    weight = _given_if("weight", weight, columns, x)
    bias = _given_if("bias", bias, columns, x)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with on_device(x):
        library().layer_norm(
            centred, CODES[x.dtype], x.data_ptr(), rows, columns, address(weight), address(bias),
            eps, y.data_ptr(), address(statistics), launch_blocks(), stream_of(x),
        )  # fmt: skip
    return y


def layer_norm_backward(
    centred: bool,
    variant: str,
    gradient: Tensor,
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    statistics: Tensor,
    parameters: bool,
    threads: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, weight and bias; the last two without elements where `parameters` is
    false, the last also where there is no bias. Errors: as sum_over."""
    no_threads(threads)
    x, rows = readable(x), whole_rows(x, columns)
    gradient = _given("gradient", gradient, x.numel(), x.dtype, x)
    weight = _given_if("weight", weight, columns, x)
    statistics = _given("statistics", statistics, 2 * rows, wide(x.dtype), x)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dgamma = torch.empty(columns if parameters else 0, dtype=x.dtype, device=x.device)
    dbeta = torch.empty(columns if parameters and centred else 0, dtype=x.dtype, device=x.device)
    code, blocks = CODES[x.dtype], launch_blocks()
    with on_device(x):
        size = 0
        if parameters:
            size = library().layer_norm_workspace(centred, variant, code, rows, columns, blocks)
        memory = workspace(x, size)
        library().layer_norm_backward(
            centred, variant, code, gradient.data_ptr(), x.data_ptr(), rows, columns,
            address(weight), statistics.data_ptr(), dx.data_ptr(), dgamma.data_ptr(),
            dbeta.data_ptr(), memory.data_ptr(), blocks, stream_of(x),
        )  # fmt: skip
    return dx, dgamma, dbeta


def _last(x: Tensor) -> tuple[int, int]:
    """How many rows along the last dimension, and how long."""
    columns = x.shape[-1] if x.dim() else 1
    return x.numel() // columns if columns else 0, columns


def softmax(log: bool, x: Tensor, threads: int | None) -> Tensor:
    """softmax, or log_softmax, over the last dimension. Errors: as sum_over."""
    no_threads(threads)
    x, (rows, columns) = readable(x), _last(x)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with on_device(x):
        library().softmax(
            log, CODES[x.dtype], x.data_ptr(), rows, columns, y.data_ptr(), launch_blocks(),
            stream_of(x),
        )  # fmt: skip
    return y


def softmax_backward(log: bool, gradient: Tensor, y: Tensor, threads: int | None) -> Tensor:
    """The gradient of x, given y and its gradient. Errors: as sum_over."""
    no_threads(threads)
    y, (rows, columns) = readable(y), _last(y)
    gradient = _given("gradient", gradient, y.numel(), y.dtype, y)
    dx = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    with on_device(y):
        library().softmax_backward(
            log, CODES[y.dtype], gradient.data_ptr(), y.data_ptr(), rows, columns, dx.data_ptr(),
            launch_blocks(), stream_of(y),
        )  # fmt: skip
    return dx


def cross_entropy(
    variant: str,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignored: int,
    reduction: int,
    smoothing: float,
    statistics: Tensor | None,
    weights: Tensor | None,
    threads: int | None,
) -> Tensor:
    """The loss over the last dimension of x.

    statistics: takes those of the rows, (2, rows); weights: takes the sum of the targets' weights,
    float64. Errors: as sum_over; IndexError for a target that is no class: whether there is one is
    asked of the device, which waits for it: UsageError while a graph is captured.
    """
    no_threads(threads)
    not_captured("cross_entropy", x)
    x, columns = readable(x), x.shape[-1]
    rows = x.shape[:-1].numel()
    target = _given("target", target, rows, torch.int64, x)
    weight = _given_if("weight", weight, columns, x)
    result = torch.empty(() if reduction else target.shape, dtype=x.dtype, device=x.device)
    first_bad = torch.full((), rows, dtype=torch.int64, device=x.device)
    code, blocks = CODES[x.dtype], launch_blocks()
    with on_device(x):
        memory = workspace(x, library().cross_entropy_workspace(variant, code, rows, blocks))
        library().cross_entropy(
            variant, code, x.data_ptr(), target.data_ptr(), rows, columns, address(weight),
            ignored, reduction, smoothing, result.data_ptr(), address(statistics),
            address(weights), first_bad.data_ptr(), memory.data_ptr(), blocks, stream_of(x),
        )  # fmt: skip
    bad = int(first_bad)
    if bad < rows:
        raise IndexError(
            f"target {int(target.reshape(-1)[bad])} at position {bad} is not one of the "
            f"{columns} classes"
        )
    return result


def cross_entropy_backward(
    gradient: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignored: int,
    reduction: int,
    smoothing: float,
    statistics: Tensor,
    weights: Tensor,
    threads: int | None,
) -> Tensor:
    """The gradient of x. Errors: as sum_over."""
    no_threads(threads)
    x, columns = readable(x), x.shape[-1]
    rows = x.shape[:-1].numel()
    target = _given("target", target, rows, torch.int64, x)
    weight = _given_if("weight", weight, columns, x)
    gradient = _given("gradient", gradient, 1 if reduction else rows, x.dtype, x)
    statistics = _given("statistics", statistics, 2 * rows, wide(x.dtype), x)
    weights = _given("weights", weights, 1, torch.float64, x)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with on_device(x):
        library().cross_entropy_backward(
            CODES[x.dtype], gradient.data_ptr(), x.data_ptr(), target.data_ptr(), rows, columns,
            address(weight), ignored, reduction, smoothing, statistics.data_ptr(),
            weights.data_ptr(), dx.data_ptr(), launch_blocks(), stream_of(x),
        )  # fmt: skip
    return dx


def var_mean(
    x: Tensor, rows: int, shape: list[int], correction: int, variant: str, threads: int | None
) -> tuple[Tensor, Tensor]:
    """Variances and means of the rows of a tensor, both of this shape. Errors: as sum_over."""
    no_threads(threads)
    var = torch.empty(shape, dtype=x.dtype, device=x.device)
    mean = torch.empty(shape, dtype=x.dtype, device=x.device)
    if rows == 0 or x.numel() == 0:
        return var.fill_(math.nan), mean.fill_(math.nan)
    x, n = readable(x), x.numel() // rows
    code, blocks = CODES[x.dtype], launch_blocks()
    with on_device(x):
        memory = workspace(x, library().var_mean_workspace(variant, code, rows, n, blocks))
        library().var_mean(
            variant, code, x.data_ptr(), rows, n, correction, var.data_ptr(), mean.data_ptr(),
            memory.data_ptr(), blocks, stream_of(x),
        )  # fmt: skip
    return var, mean
