"""How far results of one computation are apart: pure functions of two tensors.

V_s, V_ermv and V_c are the measures of Shanmugavelu et al. 2024 (arXiv 2408.05148), where A and S_d
come from the deterministic computation and B and S_nd from the other one. Equality is equality of
bits here as everywhere in this package. Their code departs from the formulas in two places, where
this does not: it adds 1e-8 to the denominators of V_ermv, which hides differences of small
elements, and one of its programs has V_s as (S_nd - S_d) / S_d.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["MEASURES", "v_c", "v_ermv", "v_s"]

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _different(reference: Tensor, result: Tensor) -> tuple[Tensor, Tensor]:
    """The elements of either tensor where their bits differ, in float64."""
    if reference.dtype is not result.dtype or reference.shape != result.shape:
        raise ValueError(
            f"only tensors of one dtype and shape can be compared, got {reference.dtype} "
            f"{tuple(reference.shape)} and {result.dtype} {tuple(result.shape)}"
        )
    bits = _BITS[reference.element_size()]
    a, b = reference.detach().reshape(-1), result.detach().reshape(-1)
    places = (a.view(bits) != b.view(bits)).nonzero().squeeze(1)
    return a[places].double(), b[places].double()


def v_s(reference: Tensor, result: Tensor) -> float:
    """V_s = 1 - |S_nd / S_d| of two tensors of one element each.

    0 where the bits are equal, positive where the result is the smaller number in magnitude. The
    sign of a result does not count: -S_d is at 0 from S_d (as published). -inf where S_d is 0 and
    S_nd is not, NaN where one of two different numbers is none.
    """
    if reference.numel() != 1:
        raise ValueError(f"V_s is of single numbers, got {reference.numel()} of them")
    a, b = _different(reference, result)
    if not len(a):
        return 0.0
    expected, found = abs(a.item()), abs(b.item())
    if expected == found:
        return 0.0
    if expected == 0:
        return math.nan if math.isnan(found) else -math.inf
    if math.isinf(expected):
        return 1 - found / expected
    # The same as the formula, but the difference of two near numbers is exact.
    return (expected - found) / expected


def v_ermv(reference: Tensor, result: Tensor) -> float:
    """V_ermv = 1/D sum |A - B| / |A|, the elementwise relative mean variability, D elements.

    Elements of equal bits add 0, and so does 0.0 beside -0.0, which differ in V_c alone. Infinite
    where an element of A is 0 and that of B is not, NaN where one of two different ones is none.
    """
    a, b = _different(reference, result)
    unequal = a != b
    a, b = a[unequal], b[unequal]
    return float(((a - b).abs() / a.abs()).sum()) / max(reference.numel(), 1)


def v_c(reference: Tensor, result: Tensor) -> float:
    """V_c = 1/D sum [A != B], the share of elements whose bits differ; 0 only if all are equal."""
    return len(_different(reference, result)[0]) / max(reference.numel(), 1)


MEASURES = {"V_s": v_s, "V_ermv": v_ermv, "V_c": v_c}
"""By the names of the paper."""
