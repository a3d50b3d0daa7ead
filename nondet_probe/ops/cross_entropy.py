"""Cross entropy with class indices: rows in one fixed order, their sum or mean in four variants.

    >>> import torch
    >>> cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor(0.6931)

The gradient of the input belongs to one row each and is the same in all variants, but for the
total weight that a weighted mean divides by. Formats and bounds: docs/ops/cross_entropy.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError, unknown_name
from nondet_probe.ops import backends
from nondet_probe.ops.checks import check_dtype
from nondet_probe.ops.define import define
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["cross_entropy"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_REDUCTIONS = ("none", "mean", "sum")
_TERMS = "of the sum of the row losses: "

register(
    Variant(
        op="cross_entropy",
        name="atomic",
        guarantee=Guarantee.NONE,
        cross_device=False,
        batch_invariant=False,
        error_bound=_TERMS + "d u/(1 - d u) sum|loss|, d = 8 + ceil(rows/8)",
        extra_memory="1 float a row, 4 rows a thread",
        worst_case="from two threads up every call may give other bits",
        dtypes=_DTYPES,
        doc="Threads add the losses of 8 rows to a shared float, in the order of their arrival.",
    )
)
register(
    Variant(
        op="cross_entropy",
        name="two_pass",
        guarantee=Guarantee.RUN_TO_RUN,
        cross_device=False,
        batch_invariant=False,
        error_bound=_TERMS + "d u/(1 - d u) sum|loss|, d = rows + threads",
        extra_memory="1 float a row, 4 rows a thread",
        worst_case="another number of threads gives other bits",
        dtypes=_DTYPES,
        doc="Each thread adds a range of rows in order; the threads' sums are added in order.",
    )
)
register(
    Variant(
        op="cross_entropy",
        name="fixed_order",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=False,
        error_bound=_TERMS + "d u/(1 - d u) sum|loss|, d = 69 + ceil(log2(ceil(rows/4096)))",
        extra_memory="1 float a row, 4 rows a thread",
        worst_case="negative weights that cancel: the bound is relative to sum|loss|",
        dtypes=_DTYPES,
        doc="The row losses are added in the order of `sum`: 64 lanes, chunks of 4096, trees.",
    )
)
register(
    Variant(
        op="cross_entropy",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=False,
        error_bound=(
            "half an ulp of the sum, or mean, of the row losses, which are themselves rounded; a "
            "weighted mean has 3 roundings in fp64 and one to the dtype"
        ),
        extra_memory="1 float a row, 4 rows a thread",
        worst_case="none; the rows take nearly all of the time",
        dtypes=_DTYPES,
        doc="The rounded row losses are added without error; sum or mean is rounded once.",
    )
)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    variant: str = "fixed_order",
    threads: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """The cross entropy of the rows of `input` with the classes in `target`.

    input: tensor on cpu, or on cuda for Triton, (C), (B, C) or (B, C, d1, ...); float64, float32,
    bfloat16 or float16.
    target: int64, of the same shape without C; in [0, C), or ignore_index. Probabilities are not
        taken. weight: (C), of the input's dtype, not differentiable.
    reduction: "mean" (over the weights of the targets), "sum" or "none".
    variant: how the rows' losses are added: "fixed_order" (the default: the losses are rounded
        themselves, so that "exact", which takes hardly longer, is no nearer to the truth),
        "exact", "two_pass" or "atomic".
    threads: the most to use; None is torch.get_num_threads(). backend: "cpu" or "triton" (which has
        no "exact"); None is by the tensor's device. docs/triton.md.

    A row's loss and gradient depend on that row alone. With nothing but ignored targets the mean
    is NaN, as in torch. NaN is the positive quiet NaN without payload. The process's rounding mode
    and flush-to-zero setting have no influence. Differentiable once, in reverse mode.

    Raises UnknownNameError for an unknown variant or reduction, TypeError for a device, dtype or
    layout that is not taken, UsageError (a ValueError) for shapes that do not fit, a smoothing
    outside of [0, 1], threads below 1 and a backend that cannot be used, IndexError for a target
    that is no class.
    """
    find("cross_entropy", variant)
    if reduction not in _REDUCTIONS:
        raise unknown_name("reduction", reduction, _REDUCTIONS)
    _check_given(input, target, weight, label_smoothing)
    x = input if input.dim() < 3 else input.movedim(1, -1)
    code = _REDUCTIONS.index(reduction)
    if backend is not None or input.is_cuda:
        kernels = backends.kernels(
            "cross_entropy", variant, backend, x, target, weight, threads=threads
        )
        if kernels is not None:
            return kernels.cross_entropy(  # type: ignore[no-any-return]
                x, target, weight, ignore_index, code, label_smoothing, variant
            )
    if input.requires_grad and torch.is_grad_enabled():
        return _forward(  # type: ignore[no-any-return]
            x, target, weight, ignore_index, code, label_smoothing, variant, threads
        )[0]
    return _loss(  # type: ignore[no-any-return]
        x, target, weight, ignore_index, code, label_smoothing, variant, threads
    )


def _check_given(x: Tensor, target: Tensor, weight: Tensor | None, smoothing: float) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"cross_entropy takes a torch.Tensor as input, got {type(x).__name__}")
    if not isinstance(target, Tensor):
        raise TypeError(
            f"cross_entropy takes a torch.Tensor as target, got {type(target).__name__}"
        )
    if target.dtype is not torch.int64:
        raise TypeError(
            f"cross_entropy takes class indices in int64 as target, got {target.dtype}; "
            "probabilities are not taken"
        )
    shape = x.shape
    if len(shape) == 2 and target.shape == shape[:1]:
        pass  # as nearly always
    elif not shape or target.shape != (shape[:1] + shape[2:] if len(shape) > 1 else ()):
        raise UsageError(
            f"cross_entropy: target has shape {tuple(target.shape)}, which is not the input's "
            f"{tuple(shape)} without its classes (the second dimension, or the only one)"
        )
    if not 0 <= smoothing <= 1:
        raise UsageError(f"label_smoothing must lie in [0, 1], got {smoothing}")
    if weight is None:
        return
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"cross_entropy takes a torch.Tensor as weight, got {type(weight).__name__}"
        )
    if weight.shape != (shape[1 if len(shape) > 1 else 0],):
        raise UsageError(
            f"cross_entropy: weight has shape {tuple(weight.shape)}; one element a class is needed"
        )
    if weight.dtype is not x.dtype:
        raise TypeError(
            f"cross_entropy takes weight in the dtype of the input, {x.dtype}; got {weight.dtype}"
        )
    if weight.requires_grad:
        raise TypeError("cross_entropy has no derivative by weight; pass weight.detach()")


def _forward_cpu(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    smoothing: float,
    variant: str,
    threads: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    check_dtype("cross_entropy", variant, x)
    rows = target.numel()
    statistics = x.new_empty(2, rows, dtype=_statistics_dtype(x))
    weights = x.new_empty((), dtype=torch.float64)
    loss = via(x).cross_entropy(
        variant, x, target, weight, ignore_index, reduction, smoothing, statistics, weights, threads
    )
    return loss, statistics, weights


def _loss_cpu(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    smoothing: float,
    variant: str,
    threads: int | None = None,
) -> Tensor:
    check_dtype("cross_entropy", variant, x)
    return via(x).cross_entropy(  # type: ignore[no-any-return]
        variant, x, target, weight, ignore_index, reduction, smoothing, None, None, threads
    )


def _statistics_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def _forward_fake(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(() if reduction else target.shape),
        x.new_empty((2, target.numel()), dtype=_statistics_dtype(x)),
        x.new_empty((), dtype=torch.float64),
    )


def _loss_fake(*given: Any) -> Tensor:
    return _forward_fake(*given)[0]


def _backward_cpu(
    gradient: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    smoothing: float,
    statistics: Tensor,
    weights: Tensor,
    threads: int | None = None,
) -> Tensor:
    check_dtype("cross_entropy", "fixed_order", x)
    return via(x).cross_entropy_backward(  # type: ignore[no-any-return]
        gradient, x, target, weight, ignore_index, reduction, smoothing, statistics, weights,
        threads,
    )  # fmt: skip


def _backward_fake(gradient: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, target, weight, *ctx.options, _variant, ctx.threads = inputs
    _, statistics, weights = output
    ctx.save_for_backward(x, target, weight, statistics, weights)
    ctx.mark_non_differentiable(statistics, weights)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradient: Tensor | None, *rest: None) -> tuple[Tensor | None, ...]:
    dx = None
    if gradient is not None:
        x, target, weight, statistics, weights = ctx.saved_tensors
        dx = _backward(gradient, x, target, weight, *ctx.options, statistics, weights, ctx.threads)
    return dx, None, None, None, None, None, None, None


_INPUTS = (
    "Tensor x, Tensor target, Tensor? weight, int ignore_index, int reduction, float smoothing"
)
# Without a gradient to come.
_loss = define(
    "cross_entropy",
    f"({_INPUTS}, str variant, int? threads=None) -> Tensor",
    kernel=_loss_cpu,
    fake=_loss_fake,
    cuda=True,
)
_forward = define(
    "cross_entropy_forward",
    f"({_INPUTS}, str variant, int? threads=None) -> (Tensor, Tensor, Tensor)",
    kernel=_forward_cpu,
    fake=_forward_fake,
    setup_context=_keep,
    backward=_gradients,
    cuda=True,
)
_backward = define(
    "cross_entropy_backward",
    f"(Tensor gradient, {_INPUTS}, Tensor statistics, Tensor weights, int? threads=None) -> Tensor",
    kernel=_backward_cpu,
    fake=_backward_fake,
    cuda=True,
)
