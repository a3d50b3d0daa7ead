"""The Euclidean norm of all elements of a tensor, in three variants.

    >>> import torch
    >>> x = torch.tensor([3e30, 4e30])
    >>> norm(x)
    tensor(5.0000e+30)
    >>> norm(x, variant="fixed_order")
    tensor(inf)

What each variant promises, its error bound and its cost: `registry.variants("norm")`,
docs/ops/norm.md. The kernels are those of `dot`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nondet_probe.ops.checks import check_dtype, readable
from nondet_probe.ops.define import define
from nondet_probe.ops.rational import tensor_of_bits
from nondet_probe.ops.rational_products import exact_dot, root_to_bits
from nondet_probe.ops.registry import Guarantee, Variant, find, register
from nondet_probe.ops.via import via

__all__ = ["norm", "norm_ref"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

register(
    Variant(
        op="norm",
        name="fixed_order",
        guarantee=Guarantee.LAUNCH_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "relative: (d + 1) u/(1 - (d + 1) u), d = 70 + ceil(log2(ceil(n/4096))), while no "
            "square underflows; then one rounding to the dtype; infinite where a square overflows"
        ),
        extra_memory="n/4096 floats",
        worst_case="|x| above 1.8e19 (fp32, bf16) overflows when squared, below 1e-23 it vanishes",
        dtypes=_DTYPES,
        doc="The root of dot's fixed_order of x with itself.",
    )
)
register(
    Variant(
        op="norm",
        name="binned",
        guarantee=Guarantee.ORDER_INVARIANT,
        cross_device=False,
        batch_invariant=True,
        error_bound=(
            "relative: 2^-53 + n 2^-80 (fp64) or n 2^-40 (others), then one rounding to the dtype"
        ),
        extra_memory="80 bytes a thread",
        worst_case="fp64 squares outside 2^-960 to 2^1024 are cut one at a time",
        dtypes=_DTYPES,
        doc="The root of dot's binned sum of squares, rounded once; no overflow or underflow.",
    )
)
register(
    Variant(
        op="norm",
        name="exact",
        guarantee=Guarantee.CORRECTLY_ROUNDED,
        cross_device=False,
        batch_invariant=True,
        error_bound="half an ulp of the result, always",
        extra_memory="1.2 KiB a thread, 65 KiB for fp64",
        worst_case="as dot: fp64, and blocks of 4096 of wide range, go one square at a time",
        dtypes=_DTYPES,
        doc="The integer square root of the exact sum of squares, rounded once.",
    )
)


def norm(x: Tensor, *, variant: str = "exact", threads: int | None = None) -> Tensor:
    """The square root of the sum of squares of all elements of x, as a 0-d tensor of its dtype.

    x: CPU tensor of any shape; float64, float32, bfloat16 or float16. One that is not contiguous is
        copied first.
    variant: "exact" (the default: the strongest promise), "binned" or "fixed_order". Never replaced
        by another one.
    threads: the most to use; None is torch.get_num_threads().

    In `exact` and `binned` no square overflows or underflows: the result is infinite only where it
    is too large itself. Infinite where x holds an infinity; NaN, the positive quiet one without
    payload, where x holds a NaN. 0 for empty x, never -0.0. The process's rounding mode and
    flush-to-zero setting have no influence. Differentiable in reverse mode, with gradient 0 at 0.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, UsageError for threads below 1 or an unknown NONDET_PROBE_ISA.
    """
    find("norm", variant)
    if not isinstance(x, Tensor):
        raise TypeError(f"norm takes a torch.Tensor, got {type(x).__name__}")
    result: Tensor = _norm(x, variant, threads)
    return result


def norm_ref(x: Tensor) -> Tensor:
    """What `norm(x, variant="exact")` must give, by integers and `math.isqrt` alone. Slow."""
    return tensor_of_bits(root_to_bits(exact_dot(x, x), x.dtype), x.dtype)


def _on_cpu(x: Tensor, variant: str, threads: int | None = None) -> Tensor:
    check_dtype("norm", variant, x)
    return via(x).norm(readable(x), variant, threads)  # type: ignore[no-any-return]


def _without_data(x: Tensor, variant: str, threads: int | None = None) -> Tensor:
    check_dtype("norm", variant, x)
    return x.new_empty(())


def _keep(ctx: Any, inputs: tuple[Tensor, str, int | None], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    x, found = ctx.saved_tensors
    # At 0 every slope up to 1 is a subgradient; 0 is the one that torch takes.
    return x * (gradient / found).masked_fill(found == 0, 0), None, None


_norm = define(
    "norm",
    "(Tensor x, str variant, int? threads=None) -> Tensor",
    kernel=_on_cpu,
    fake=_without_data,
    setup_context=_keep,
    backward=_backward,
    cuda=True,
)
