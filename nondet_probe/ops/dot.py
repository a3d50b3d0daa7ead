"""The dot product of two vectors, in three variants from a fixed order to correctly rounded.

    >>> import torch
    >>> a, b = torch.tensor([1e8, 1e8, 1.0]), torch.tensor([1e8, -1e8, 1e-8])
    >>> dot(a, b)
    tensor(1.0000e-08)
    >>> dot(a, b, variant="fixed_order")
    tensor(0.)

What each variant promises, its error bound and its cost: `registry.variants("dot")`,
docs/ops/dot.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe.errors import UsageError
from nondet_probe.ops.checks import check_dtype, readable
from nondet_probe.ops.define import define
from nondet_probe.ops.rational import round_to_bits, tensor_of_bits
from nondet_probe.ops.rational_products import exact_dot
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["dot", "dot_ref"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

register(
    Variant(
        op="dot",
        name="fixed_order",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "d u/(1 - d u) sum|a b|, d = 70 + ceil(log2(ceil(n/4096))), plus n/2 times the "
            "smallest subnormal, then one rounding to the dtype; infinite where a product or a "
            "partial sum overflows"
        ),
        extra_memory="n/4096 floats",
        worst_case="cancellation: the bound is relative to sum|a b|, not to the result",
        dtypes=_DTYPES,
        doc="Each product rounded once, then the order of `sum`'s fixed_order; nothing is fused.",
    )
)
register(
    Variant(
        op="dot",
        name="binned",
        guarantee=Guarantee.ORDER_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "2^-53 sum|a b| + n max|a b| 2^-80 (fp64) or n max|a b| 2^-40 (others), then one "
            "rounding to the dtype"
        ),
        extra_memory="80 bytes a thread",
        worst_case="cancellation: the bound is relative to max|a b|, not to the result",
        dtypes=_DTYPES,
        doc="Products cut on an absolute grid of 40-bit bins below max|a b|; bins add as integers.",
    )
)
register(
    Variant(
        op="dot",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of the result, always",
        extra_memory="1.2 KiB a thread, 65 KiB for fp64",
        worst_case=(
            "blocks of 4096 whose products span more than about 120 binades, or hold an infinity "
            "or NaN, are added one product at a time; fp64 always is, about four times as slowly"
        ),
        dtypes=_DTYPES,
        doc="Error-free products and additions into a fixed-point number of twice the range.",
    )
)


def dot(a: Tensor, b: Tensor, *, variant: str = "exact", threads: int | None = None) -> Tensor:
    """The sum of a[i] b[i], as a 0-d tensor of their dtype; 0 for empty vectors.

    a, b: 1-D CPU tensors of one length and one dtype: float64, float32, bfloat16 or float16. Ones
        that are not contiguous are copied first.
    variant: "exact" (the default: the strongest promise), "binned" or "fixed_order". Never replaced
        by another one.
    threads: the most to use; None is torch.get_num_threads().

    In `exact` and `binned` no product overflows or underflows. NaN is always the positive quiet NaN
    without payload; 0 times infinity is one. A zero is -0.0 only where every product is. The
    process's rounding mode and flush-to-zero setting have no influence. Differentiable in reverse
    mode.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken or dtypes that differ, UsageError for other shapes, threads below 1 or an unknown
    NONDET_PROBE_ISA.
    """
    find("dot", variant)
    for x in (a, b):
        if not isinstance(x, Tensor):
            raise TypeError(f"dot takes two torch.Tensor, got {type(x).__name__}")
    result: Tensor = _dot(a, b, variant, threads)
    return result


def dot_ref(a: Tensor, b: Tensor) -> Tensor:
    """What `dot(a, b, variant="exact")` must give, by fractions and integers alone. Slow."""
    return tensor_of_bits(round_to_bits(exact_dot(a, b), a.dtype), a.dtype)


def _check(a: Tensor, b: Tensor, variant: str) -> None:
    check_dtype("dot", variant, a)
    if b.dtype is not a.dtype:
        raise TypeError(f"dot takes tensors of one dtype, got {a.dtype} and {b.dtype}")
    if a.dim() != 1 or a.shape != b.shape:
        raise UsageError(
            f"dot takes two vectors of one length, got shapes {tuple(a.shape)} and "
            f"{tuple(b.shape)}; pass a.reshape(-1), b.reshape(-1)"
        )


def _on_cpu(a: Tensor, b: Tensor, variant: str, threads: int | None = None) -> Tensor:
    _check(a, b, variant)
    return via(a).dot(readable(a), readable(b), variant, threads)  # type: ignore[no-any-return]


def _without_data(a: Tensor, b: Tensor, variant: str, threads: int | None = None) -> Tensor:
    _check(a, b, variant)
    return a.new_empty(())


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, str, int | None], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    a, b = ctx.saved_tensors
    of_a = gradient * b if ctx.needs_input_grad[0] else None
    of_b = gradient * a if ctx.needs_input_grad[1] else None
    return of_a, of_b, None, None


_dot = define(
    "dot",
    "(Tensor a, Tensor b, str variant, int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep,
    backward=_backward,
    cuda=True,
)
