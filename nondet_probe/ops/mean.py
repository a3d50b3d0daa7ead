"""Means over all elements or over dimensions, in the variants of `sum`.

    >>> import torch
    >>> mean(torch.tensor([1.0, 2.0, 4.0]))
    tensor(2.3333)

`exact` rounds once: the exact sum, divided as an integer, straight to the dtype. So do `binned` and
`kahan` with the sums that they have. The others add in floating point, divide in float64 and round
that to the dtype. `registry.variants("mean")`, docs/ops.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from nondet_probe.ops.dims import listed, row_by_row
from nondet_probe.ops.rational import exact_sum, round_to_bits, tensor_of_bits
from nondet_probe.ops.registry import find
from nondet_probe.ops.sum_operators import define_sums
from nondet_probe.ops.sum_variants import register_sums

__all__ = ["mean", "mean_ref"]

register_sums("mean", mean=True)
_full, _over_dims = define_sums("mean", mean=True)


def mean(
    x: Tensor,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    variant: str = "exact",
    threads: int | None = None,
) -> Tensor:
    """The mean of x over all elements, or over the dimensions given; in the dtype of x.

    All arguments, zeros, NaNs and errors are those of `sum`; the mean of nothing is NaN. A mean
    too small for the dtype is the zero of its sign.
    """
    find("mean", variant)
    if not isinstance(x, Tensor):
        raise TypeError(f"mean takes a torch.Tensor, got {type(x).__name__}")
    if dim is None and not keepdim:
        return _full(x, variant, threads)
    return _over_dims(x, listed(dim), keepdim, variant, threads)


def mean_ref(x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """What `mean(x, dim, keepdim, variant="exact")` must give, by fractions and integers alone.
    Slow: 1 us an element. Any layout and device."""

    def reduce(row: Tensor) -> Tensor:
        total = exact_sum(row)
        if row.numel() == 0:
            total = math.nan
        elif isinstance(total, Fraction):
            total /= row.numel()
        return tensor_of_bits(round_to_bits(total, x.dtype), x.dtype)

    return row_by_row(x, dim, keepdim, reduce)
