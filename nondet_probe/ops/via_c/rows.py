"""Row-wise ops: `layer_norm`, `rms_norm`, `softmax`, `cross_entropy`: the way into `_C`."""

from __future__ import annotations

import torch
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.errors import UsageError
from nondet_probe.ops.checks import readable
from nondet_probe.ops.rows import address, whole_rows, wide
from nondet_probe.ops.via_c.room import room
from nondet_probe.ops.via_c.threads import at_most

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "layer_norm",
    "layer_norm_backward",
    "softmax",
    "softmax_backward",
]


def _given(what: str, x: Tensor, elements: int, dtype: torch.dtype) -> Tensor:
    """The same, of so many elements of this dtype: the kernels trust them. UsageError when not;
    only operators called past the public functions can come here with others."""
    if x.numel() != elements or x.dtype is not dtype:
        raise UsageError(
            f"{what} has {x.numel()} elements of {x.dtype}, {elements} of {dtype} are needed"
        )
    return readable(x)


def _given_if(what: str, x: Tensor | None, elements: int, dtype: torch.dtype) -> Tensor | None:
    return None if x is None else _given(what, x, elements, dtype)


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
    """layer_norm (centred) or rms_norm of a CPU tensor whose rows have `columns` elements.

    statistics: takes the mean and the scale of each row, (2, rows). Errors: as sum_all; TypeError
    where a tensor has no memory.
    """
    count = at_most(threads)
    x, rows = readable(x), whole_rows(x, columns)
    weight = _given_if("weight", weight, columns, x.dtype)
    bias = _given_if("bias", bias, columns, x.dtype)
    y = torch.empty_like(x)
    try:
        _C.layer_norm(
            centred, CODES[x.dtype], x.data_ptr(), rows, columns, address(weight), address(bias),
            eps, count, "", y.data_ptr(), address(statistics),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None
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
    false, the last also where there is no bias. Errors: as sum_all."""
    count = at_most(threads)
    x, rows = readable(x), whole_rows(x, columns)
    gradient = _given("gradient", gradient, x.numel(), x.dtype)
    weight = _given_if("weight", weight, columns, x.dtype)
    statistics = _given("statistics", statistics, 2 * rows, wide(x.dtype))
    dx = torch.empty_like(x)
    dgamma = x.new_empty(columns if parameters else 0)
    dbeta = x.new_empty(columns if parameters and centred else 0)
    try:
        _C.layer_norm_backward(
            centred, variant, CODES[x.dtype], gradient.data_ptr(), x.data_ptr(), rows, columns,
            address(weight), statistics.data_ptr(), count, "", dx.data_ptr(), dgamma.data_ptr(),
            dbeta.data_ptr(),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None
    return dx, dgamma, dbeta


def softmax(log: bool, x: Tensor, threads: int | None) -> Tensor:
    """softmax, or log_softmax, over the last dimension of a CPU tensor. Errors: as norm."""
    count, x = at_most(threads), readable(x)
    columns = x.shape[-1] if x.dim() else 1
    rows = x.numel() // columns if columns else 0
    y = torch.empty_like(x)
    try:
        _C.softmax(log, CODES[x.dtype], x.data_ptr(), rows, columns, count, "", y.data_ptr())
    except ValueError as error:
        raise UsageError(str(error)) from None
    return y


def softmax_backward(log: bool, gradient: Tensor, y: Tensor, threads: int | None) -> Tensor:
    """The gradient of x, given y and its gradient. Errors: as norm."""
    count, y = at_most(threads), readable(y)
    gradient = _given("gradient", gradient, y.numel(), y.dtype)
    columns = y.shape[-1] if y.dim() else 1
    rows = y.numel() // columns if columns else 0
    dx = torch.empty_like(y)
    try:
        _C.softmax_backward(
            log, CODES[y.dtype], gradient.data_ptr(), y.data_ptr(), rows, columns, count, "",
            dx.data_ptr(),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None
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
    float64; both or neither. Errors: as norm; IndexError for a target that is no class.
    """
    count = at_most(threads)
    x, columns = readable(x), x.shape[-1]
    rows = x.numel() // columns if columns else x.shape[:-1].numel()
    target = _given("target", target, rows, torch.int64)
    weight = _given_if("weight", weight, columns, x.dtype)
    result = room(x, () if reduction else target.shape)
    try:
        _C.cross_entropy(
            variant, CODES[x.dtype], x.data_ptr(), target.data_ptr(), rows, columns,
            address(weight), ignored, reduction, smoothing, count, "", result.data_ptr(),
            address(statistics), address(weights),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None
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
    """The gradient of x. Errors: as norm."""
    count = at_most(threads)
    x, columns = readable(x), x.shape[-1]
    rows = x.shape[:-1].numel()
    target = _given("target", target, rows, torch.int64)
    weight = _given_if("weight", weight, columns, x.dtype)
    gradient = _given("gradient", gradient, 1 if reduction else rows, x.dtype)
    statistics = _given("statistics", statistics, 2 * rows, wide(x.dtype))
    weights = _given("weights", weights, 1, torch.float64)
    dx = torch.empty_like(x)
    try:
        _C.cross_entropy_backward(
            CODES[x.dtype], gradient.data_ptr(), x.data_ptr(), target.data_ptr(), rows,
            columns, address(weight), ignored, reduction, smoothing, statistics.data_ptr(),
            weights.data_ptr(), count, "", dx.data_ptr(),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from None
    return dx
