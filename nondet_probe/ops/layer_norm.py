"""Normalisation over the last dimensions, with derivatives whose sums over rows are known.

    >>> import torch
    >>> layer_norm(torch.tensor([[1.0, 2.0, 3.0]]), (3,))
    tensor([[-1.2247,  0.0000,  1.2247]])

What belongs to one row (the result, the gradient of the input) is computed in one fixed order
whatever the variant; the variant is that of the sums over rows, the gradients of weight and bias.
Formats and bounds: docs/ops/layer_norm.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops import backends
from nondet_probe.ops.checks import check_dtype
from nondet_probe.ops.define import define
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["layer_norm", "rms_norm"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

_SUMS: dict[str, dict[str, Any]] = {
    "atomic": {
        "guarantee": Guarantee.NONE,
        "batch_invariant": False,
        "error_bound": (
            "of dgamma and dbeta: d u/(1 - d u) sum|term|, d = 8 + ceil(rows/8), then one rounding "
            "to the dtype"
        ),
        "extra_memory": "8 rows a thread",
        "worst_case": "from two threads up every call may give other bits of dgamma and dbeta",
        "doc": "Threads add the sums of 8 rows to shared floats, in the order of their arrival.",
    },
    "two_pass": {
        "guarantee": Guarantee.RUN_TO_RUN,
        "batch_invariant": False,
        "error_bound": (
            "of dgamma and dbeta: d u/(1 - d u) sum|term|, d = rows + threads, then one rounding "
            "to the dtype"
        ),
        "extra_memory": "8 rows a thread",
        "worst_case": "another number of threads gives other bits of dgamma and dbeta",
        "doc": "Each thread adds a range of rows in order; the threads' sums are added in order.",
    },
    "fixed_order": {
        "guarantee": Guarantee.LAUNCH_INVARIANT,
        "batch_invariant": False,
        "error_bound": (
            "of dgamma and dbeta: d u/(1 - d u) sum|term|, d = 31 + ceil(log2(ceil(rows/32))), "
            "then one rounding to the dtype"
        ),
        "extra_memory": "2 floats a column for every 32 rows",
        "worst_case": "cancellation: the bound is relative to sum|term|, not to the result",
        "doc": "Chunks of 32 rows, each added in order; their sums by neighbours, in rounds.",
    },
    "exact": {
        "guarantee": Guarantee.CORRECTLY_ROUNDED,
        "batch_invariant": False,
        "error_bound": (
            "of dgamma and dbeta: half an ulp of the sum of the terms, which are themselves rounded"
        ),
        "extra_memory": "310 kB a thread",
        "worst_case": "blocks of 64 rows that span too many binades are added one by one",
        "doc": "The rounded terms of every column are added without error and rounded once.",
    },
}

for _op in ("layer_norm", "rms_norm"):
    for _name, _fields in _SUMS.items():
        register(Variant(op=_op, name=_name, cross_device=False, dtypes=_DTYPES, **_fields))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    variant: str = "fixed_order",
    threads: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """(input - mean) / sqrt(variance + eps) * weight + bias over the last dimensions.

    input: tensor on cpu, or on cuda for Triton; float64, float32, bfloat16 or float16.
    normalized_shape: its last sizes.
    weight, bias: of that shape and of the input's dtype, or None.
    variant: how the gradients of weight and bias are summed over rows: "fixed_order" (the default:
        the same bits for any thread count at the speed of "two_pass", where "exact" costs about
        twice as much), "exact", "two_pass" or "atomic". The result itself is the same in all.
    threads: the most to use; None is torch.get_num_threads(). backend: "cpu" or "triton" (which has
        no "exact"); None is by the tensor's device. docs/triton.md.

    A row's bits depend on that row alone. NaN is the positive quiet NaN without payload. The
    process's rounding mode and flush-to-zero setting have no influence. Differentiable once, in
    reverse mode.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, UsageError (a ValueError) for shapes that do not fit, threads below 1
    and a backend that cannot be used.
    """
    columns = _columns("layer_norm", variant, input, normalized_shape, weight, bias)
    if backend is not None or input.is_cuda:
        kernels = backends.kernels(
            "layer_norm", variant, backend, input, weight, bias, threads=threads
        )
        if kernels is not None:
            return kernels.layer_norm(input, columns, weight, bias, eps, True, variant)  # type: ignore[no-any-return]
    if _needs_gradient(input, weight, bias):
        return _norm_forward(input, columns, weight, bias, eps, True, variant, threads)[0]  # type: ignore[no-any-return]
    return _norm(input, columns, weight, bias, eps, True, threads)  # type: ignore[no-any-return]


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    variant: str = "fixed_order",
    threads: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """input / sqrt(mean(input^2) + eps) * weight over the last dimensions.

    As layer_norm, without a mean and a bias. eps: None is torch.finfo(input.dtype).eps.
    """
    columns = _columns("rms_norm", variant, input, normalized_shape, weight, None)
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    if backend is not None or input.is_cuda:
        kernels = backends.kernels("rms_norm", variant, backend, input, weight, threads=threads)
        if kernels is not None:
            return kernels.layer_norm(input, columns, weight, None, eps, False, variant)  # type: ignore[no-any-return]
    if _needs_gradient(input, weight, None):
        return _norm_forward(input, columns, weight, None, eps, False, variant, threads)[0]  # type: ignore[no-any-return]
    return _norm(input, columns, weight, None, eps, False, threads)  # type: ignore[no-any-return]


def _columns(
    op: str,
    variant: str,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
) -> int:
    """How many elements a row has."""
    find(op, variant)
    if not isinstance(x, Tensor):
        raise TypeError(f"{op} takes a torch.Tensor, got {type(x).__name__}")
    shape = tuple(shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise UsageError(
            f"{op} normalises over the last dimensions: normalized_shape {shape} is not the end "
            f"of the input's shape {tuple(x.shape)}"
        )
    if weight is not None:
        _check_parameter(op, "weight", weight, x, shape)
    if bias is not None:
        _check_parameter(op, "bias", bias, x, shape)
    return shape[0] if len(shape) == 1 else math.prod(shape)


def _check_parameter(
    op: str, name: str, parameter: Tensor, x: Tensor, shape: tuple[int, ...]
) -> None:
    if not isinstance(parameter, Tensor):
        raise TypeError(f"{op} takes a torch.Tensor as {name}, got {type(parameter).__name__}")
    if parameter.shape != shape:
        raise UsageError(
            f"{op}: {name} has shape {tuple(parameter.shape)}, normalized_shape is {shape}"
        )
    if parameter.dtype is not x.dtype:
        raise TypeError(
            f"{op} takes {name} in the dtype of the input, {x.dtype}; got {parameter.dtype}"
        )


def _needs_gradient(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
    )


# ---- kernels, and the shapes of what they return


def _norm_cpu(
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    threads: int | None = None,
) -> Tensor:
    check_dtype("layer_norm", "fixed_order", x)
    return via(x).layer_norm(centred, x, columns, weight, bias, eps, None, threads)  # type: ignore[no-any-return]


def _norm_fake(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _statistics(x: Tensor, columns: int) -> Tensor:
    """Room for the mean and the scale of each row."""
    rows = x.numel() // columns if columns else 0
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    return x.new_empty((2, rows), dtype=dtype)


def _forward_cpu(
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    centred: bool,
    variant: str,
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    check_dtype("layer_norm", variant, x)
    statistics = _statistics(x, columns)
    result = via(x).layer_norm(centred, x, columns, weight, bias, eps, statistics, threads)
    return result, statistics


def _forward_fake(x: Tensor, columns: int, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), _statistics(x, columns)


def _backward_cpu(
    gradient: Tensor,
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    statistics: Tensor,
    parameters: bool,
    centred: bool,
    variant: str,
    threads: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    check_dtype("layer_norm", variant, x)
    return via(x).layer_norm_backward(  # type: ignore[no-any-return]
        centred, variant, gradient, x, columns, weight, statistics, parameters, threads
    )


def _backward_fake(
    gradient: Tensor,
    x: Tensor,
    columns: int,
    weight: Tensor | None,
    statistics: Tensor,
    parameters: bool,
    centred: bool,
    variant: str,
    threads: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    dgamma = x.new_empty(columns if parameters else 0)
    return x.new_empty(x.shape), dgamma, x.new_empty(columns if parameters and centred else 0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, ctx.columns, weight, bias, _eps, ctx.centred, ctx.variant, ctx.threads = inputs
    ctx.bias_shape = None if bias is None else bias.shape
    ctx.save_for_backward(x, weight, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    dx = dgamma = dbeta = None
    if gradient is not None:
        x, weight, statistics = ctx.saved_tensors
        _, _, for_weight, for_bias, *_ = ctx.needs_input_grad
        dx, dgamma, dbeta = _norm_backward(
            gradient, x, ctx.columns, weight, statistics, for_weight or for_bias, ctx.centred,
            ctx.variant, ctx.threads,
        )  # fmt: skip
        dgamma = _shaped(dgamma, weight.shape) if for_weight else None
        dbeta = _shaped(dbeta, ctx.bias_shape) if for_bias else None
    return dx, None, dgamma, dbeta, None, None, None, None


def _shaped(x: Tensor, shape: torch.Size) -> Tensor:
    return x.view(shape) if len(shape) != 1 else x


_INPUTS = "Tensor x, SymInt columns, Tensor? weight, Tensor? bias, float eps, bool centred"
# Without a gradient to come: one tensor less to make, and nothing that a variant would change.
_norm = define(
    "layer_norm",
    f"({_INPUTS}, int? threads=None) -> Tensor",
    kernel=_norm_cpu,
    fake=_norm_fake,
    cuda=True,
)
_norm_forward = define(
    "layer_norm_forward",
    f"({_INPUTS}, str variant, int? threads=None) -> (Tensor, Tensor)",
    kernel=_forward_cpu,
    fake=_forward_fake,
    setup_context=_keep,
    backward=_gradients,
    cuda=True,
)
_norm_backward = define(
    "layer_norm_backward",
    "(Tensor gradient, Tensor x, SymInt columns, Tensor? weight, Tensor statistics, "
    "bool parameters, bool centred, str variant, int? threads=None) -> (Tensor, Tensor, Tensor)",
    kernel=_backward_cpu,
    fake=_backward_fake,
    cuda=True,
)
