"""The sum of all elements of a tensor, in four variants from no guarantee to correctly rounded.

    >>> import torch
    >>> x = torch.tensor([1e8, -1e8, 1e-8])
    >>> sum(x)
    tensor(1.0000e-08)
    >>> sum(x, variant="fixed_order")
    tensor(0.)

What each variant promises, its error bound and its cost: `registry.variants("sum")`, docs/ops.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe.ops import via_c
from nondet_probe.ops.checks import check_dtype, check_memory
from nondet_probe.ops.define import define
from nondet_probe.ops.rational import exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import Guarantee, Variant, find, register

__all__ = ["sum", "sum_ref"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

register(
    Variant(
        op="sum",
        name="atomic",
        guarantee=Guarantee.NONE,
        cross_device=False,
        batch_invariant=False,
        error_bound="d u/(1 - d u) sum|x|, d = 20 + ceil(n/1024), then one rounding to the dtype",
        extra_memory="none",
        worst_case="from two threads up every call may give other bits",
        dtypes=_DTYPES,
        doc="Threads add blocks of 1024 to one shared float, in the order in which they arrive.",
    )
)
register(
    Variant(
        op="sum",
        name="fixed_order",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "d u/(1 - d u) sum|x|, d = 69 + ceil(log2(ceil(n/4096))), then one rounding to the "
            "dtype; infinite where a partial sum overflows"
        ),
        extra_memory="n/4096 floats",
        worst_case="cancellation: the bound is relative to sum|x|, not to the result",
        dtypes=_DTYPES,
        doc="Chunks of 4096 by 64 lanes and binary trees: an order that depends on n alone.",
    )
)
register(
    Variant(
        op="sum",
        name="binned",
        guarantee=Guarantee.ORDER_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound="n max|x| 2^-80 (fp64) or 2^-40 (others), then one rounding to the dtype",
        extra_memory="80 bytes a thread",
        worst_case="cancellation: the bound is relative to max|x|, not to the result",
        dtypes=_DTYPES,
        doc="Elements cut on an absolute grid of 40-bit bins below max|x|; bins add as integers.",
    )
)
register(
    Variant(
        op="sum",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of the result, always",
        extra_memory="600 bytes a thread",
        worst_case=(
            "fp64 blocks of 16384 that span more than about 70 binades, or hold an infinity or NaN "
            "(any dtype), are added one element at a time"
        ),
        dtypes=_DTYPES,
        doc="Error-free additions, checked, into a fixed-point number wide enough for every sum.",
    )
)


def sum(x: Tensor, *, variant: str = "exact", threads: int | None = None) -> Tensor:
    """The sum of all elements of x, as a 0-d tensor of its dtype; 0 where there are none.

    x: contiguous CPU tensor of any shape; float64, float32, bfloat16 or float16.
    variant: "exact" (the default: the strongest promise is also fast), "binned", "fixed_order" or
        "atomic". Never replaced by another one.
    threads: the most to use; None is torch.get_num_threads().

    NaN is always the positive quiet NaN without payload. A zero is -0.0 only where every element
    is -0.0 (`fixed_order` and `atomic`: as IEEE 754 additions give it, which is the same). The
    process's rounding mode and flush-to-zero setting have no influence. Differentiable in reverse
    mode.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, UsageError for threads below 1 or an unknown NONDET_PROBE_ISA.
    """
    find("sum", variant)
    if not isinstance(x, Tensor):
        raise TypeError(f"sum takes a torch.Tensor, got {type(x).__name__}")
    result: Tensor = _sum(x, variant, threads)
    return result


def sum_ref(x: Tensor) -> Tensor:
    """What `sum(x, variant="exact")` must give, by fractions and integers alone. Slow: 1 us an
    element. Any layout and device."""
    return tensor_of_bits(round_to_bits(exact_sum(x), x.dtype), x.dtype)


def _check(x: Tensor, variant: str) -> None:
    check_dtype("sum", variant, x)
    if not x.is_contiguous():
        raise TypeError(
            f"sum takes contiguous tensors, got shape {tuple(x.shape)} with strides {x.stride()}; "
            "pass x.contiguous()"
        )


def _on_cpu(x: Tensor, variant: str, threads: int | None = None) -> Tensor:
    _check(x, variant)
    check_memory(x)
    return via_c.sum_all(x, variant, threads)


def _without_data(x: Tensor, variant: str, threads: int | None = None) -> Tensor:
    _check(x, variant)
    return x.new_empty(())


def _keep_shape(ctx: Any, inputs: tuple[Tensor, str, int | None], output: Tensor) -> None:
    ctx.shape = inputs[0].shape


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return gradient.expand(ctx.shape), None, None


_sum = define(
    "sum",
    "(Tensor x, str variant, int? threads=None) -> Tensor",
    cpu=_on_cpu,
    fake=_without_data,
    setup_context=_keep_shape,
    backward=_backward,
)
