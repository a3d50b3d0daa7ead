"""softmax and log_softmax, with the same bits on every instruction set and thread count.

    >>> import torch
    >>> softmax(torch.tensor([0.0, 0.0]), 0)
    tensor([0.5000, 0.5000])

Everything belongs to one row, so there is one variant, `fixed_order`: docs/ops/softmax.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe.ops import backends
from nondet_probe.ops.checks import check_dtype
from nondet_probe.ops.define import define
from nondet_probe.ops.registry import Guarantee, Variant, register
from nondet_probe.ops.via import via

__all__ = ["log_softmax", "softmax"]

for _op, _bound in (
    ("softmax", "(74 + ceil(log2(ceil(C/4096))) + ln C + |x - max|) u relative, first order"),
    ("log_softmax", "(74 + ceil(log2(ceil(C/4096))) + ln C) u + 3 u |result|, first order"),
):
    register(
        Variant(
            op=_op,
            name="fixed_order",
            guarantee=Guarantee.LAUNCH_INVARIANT,
            cross_device=False,
            batch_invariant=True,
            error_bound=f"{_bound}; then one rounding to the dtype",
            extra_memory="2 to 4 rows a thread",
            worst_case="softmax: results below the smallest normal number keep fewer bits",
            dtypes=(torch.float64, torch.float32, torch.bfloat16, torch.float16),
            doc="exp of our own, summed in the order of `sum`: 64 lanes, chunks of 4096, trees.",
        )
    )


def softmax(
    input: Tensor, dim: int, *, threads: int | None = None, backend: str | None = None
) -> Tensor:
    """exp(input) over its sum along `dim`.

    input: tensor on cpu, or on cuda for Triton; float64, float32, bfloat16 or float16. dim: as
    torch counts, from the end where negative; another one than the last is moved there and back.
    threads: the most to use; None is torch.get_num_threads(). backend: "cpu" or "triton"; None is
    by the tensor's device. docs/triton.md.

    A row that holds a NaN or inf, or nothing but -inf, is NaN all over: the positive quiet NaN
    without payload. The process's rounding mode and flush-to-zero setting have no influence.
    Differentiable once, in reverse mode.

    Raises TypeError for a device, dtype or layout that is not taken, IndexError for a dimension
    that is not there, UsageError for threads below 1 and a backend that cannot be used.
    """
    return _along(input, dim, False, threads, backend)


def log_softmax(
    input: Tensor, dim: int, *, threads: int | None = None, backend: str | None = None
) -> Tensor:
    """The logarithm of softmax, as input - log(sum(exp(input))). Everything else is as there."""
    return _along(input, dim, True, threads, backend)


def _along(x: Tensor, dim: int, log: bool, threads: int | None, backend: str | None) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"softmax takes a torch.Tensor, got {type(x).__name__}")
    dims = max(x.dim(), 1)
    if not -dims <= dim < dims:
        raise IndexError(f"dim {dim} is not in [{-dims}, {dims - 1}], the tensor has {dims}")
    if backend is not None or x.is_cuda:
        op = "log_softmax" if log else "softmax"
        kernels = backends.kernels(op, "fixed_order", backend, x, threads=threads)
        if kernels is not None:
            if x.dim() == 0:
                return kernels.softmax(x, log)  # type: ignore[no-any-return]
            return kernels.softmax(x.movedim(dim, -1), log).movedim(-1, dim)  # type: ignore[no-any-return]
    if dim in (-1, dims - 1):
        return _softmax(x, log, threads)  # type: ignore[no-any-return]
    return _softmax(x.movedim(dim, -1), log, threads).movedim(-1, dim)  # type: ignore[no-any-return]


def _on_cpu(x: Tensor, log: bool, threads: int | None = None) -> Tensor:
    check_dtype("softmax", "fixed_order", x)
    return via(x).softmax(log, x, threads)  # type: ignore[no-any-return]


def _like(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


def _backward_on_cpu(gradient: Tensor, y: Tensor, log: bool, threads: int | None = None) -> Tensor:
    check_dtype("softmax", "fixed_order", y)
    return via(y).softmax_backward(log, gradient, y, threads)  # type: ignore[no-any-return]


_softmax_backward = define(
    "softmax_backward",
    "(Tensor gradient, Tensor y, bool log, int? threads=None) -> Tensor",
    kernel=_backward_on_cpu,
    fake=_like,
    cuda=True,
)


def _keep(ctx: Any, inputs: tuple[Tensor, bool, int | None], output: Tensor) -> None:
    _, ctx.log, ctx.threads = inputs
    ctx.save_for_backward(output)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _softmax_backward(gradient, ctx.saved_tensors[0], ctx.log, ctx.threads), None, None


_softmax = define(
    "softmax",
    "(Tensor x, bool log, int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_like,
    setup_context=_keep,
    backward=_gradients,
    cuda=True,
)
