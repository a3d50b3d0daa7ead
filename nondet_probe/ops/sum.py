"""Sums over all elements or over dimensions, from no guarantee to correctly rounded.

    >>> import torch
    >>> x = torch.tensor([1e8, -1e8, 1e-8])
    >>> sum(x)
    tensor(1.0000e-08)
    >>> sum(x, variant="fixed_order")
    tensor(0.)

What each variant promises, its error bound and its cost: `registry.variants("sum")`, docs/ops.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nondet_probe.ops.dims import listed, row_by_row
from nondet_probe.ops.rational import exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import find
from nondet_probe.ops.sum_operators import define_sums
from nondet_probe.ops.sum_variants import register_sums

__all__ = ["sum", "sum_ref"]

register_sums("sum", mean=False)
_full, _over_dims = define_sums("sum", mean=False)


def sum(
    x: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    variant: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """The sum of x over all elements, or over the dimensions given; in the dtype of x.

    x: dense CPU tensor of any shape and strides, read where it lies; float64, float32, bfloat16
        or float16.
    dim, keepdim: as in torch.sum: None or no dimensions are all; negative ones count from the end.
    variant: "exact" (the default: the strongest promise is also fast), "binned", "fixed_order",
        "two_pass" or "atomic"; "kahan" and "pairwise" to compare accuracy with. Never replaced by
        another one.
    threads: the most to use; None is torch.get_num_threads().

    The sum of nothing is 0. NaN is always the positive quiet NaN without payload. A zero is -0.0
    only where every element is -0.0 (in the variants that add in floating point: as IEEE 754
    additions give it, which is the same). The process's rounding mode and flush-to-zero setting
    have no influence. Differentiable in reverse mode.

    Raises UnknownNameError for an unknown variant, TypeError for a device, dtype or layout that is
    not taken, IndexError for a dimension out of range, UsageError for one given twice, for threads
    below 1 and for an unknown NONDET_PROBE_ISA.
    """
    find("sum", variant)
    if not isinstance(x, Tensor):
        raise TypeError(f"sum takes a torch.Tensor, got {type(x).__name__}")
    if dim is None and not keepdim:
        return _full(x, variant, threads)
    return _over_dims(x, listed(dim), keepdim, variant, threads)


def sum_ref(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """What `sum(x, dim, keepdim, variant="exact")` must give, by fractions and integers alone.
    Slow: 1 us an element. Any layout and device."""

    def reduce(row: Tensor) -> Tensor:
        return tensor_of_bits(round_to_bits(exact_sum(row), x.dtype), x.dtype)

    return row_by_row(x, dim, keepdim, reduce)
