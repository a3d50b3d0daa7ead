"""Two tensors, bit for bit: are they equal, where not, and how far apart.

Equality is equality of bits: -0.0 is not 0.0, and a NaN equals itself when its payload does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nondet_probe.bits import via_c
from nondet_probe.bits.dtypes import FLOATING, REAL_OF, dtype_name

__all__ = [
    "ULP_BUCKETS",
    "ULP_MAX",
    "Comparison",
    "bit_equal",
    "compare",
    "count_different",
    "ulp_distance",
]

ULP_MAX = 2**63 - 1
"""A distance that cannot be counted: one of two different elements is NaN, or two float64 elements
lie this many floats apart or more."""

ULP_BUCKETS = 65
"""Length of `Comparison.ulps`."""


class Comparison(NamedTuple):
    """What one pass over two tensors of the same dtype and shape found.

    elements: of either tensor; different: those whose bits differ; first: row-major index of the
    first of them, or None. max_ulp: the largest `ulp_distance` of an element (of a half, for
    complex dtypes), ULP_MAX where it cannot be counted, None for dtypes without an ulp.
    sum_squares_difference: sum of (a - b)^2, in float64; elements with equal bits add nothing, so
    a NaN or an infinity counts only where the tensors differ. sum_squares, sum_squares_other: sums
    of a^2 and of b^2, dot: sum of a * b, in float64. All sums have the same bits for every thread
    count and instruction set.
    ulps: how many elements (halves, for complex dtypes) lie how far apart, ULP_BUCKETS numbers:
    ulps[0] equal bits, ulps[k] a distance of 2^(k-1) or more and less than 2^k, the last ULP_MAX.
    None for dtypes without an ulp.
    """

    elements: int
    different: int
    max_ulp: int | None
    first: int | None
    sum_squares_difference: float
    sum_squares: float
    sum_squares_other: float
    dot: float
    ulps: tuple[int, ...] | None


def _comparable(a: Tensor, b: Tensor) -> int:
    code = via_c.dtype_code(a)
    via_c.dtype_code(b)
    if a.dtype is not b.dtype or a.shape != b.shape:
        raise ValueError(
            "only tensors of one dtype and shape can be compared, got "
            f"{dtype_name(a.dtype)} {tuple(a.shape)} and {dtype_name(b.dtype)} {tuple(b.shape)}"
        )
    return code


def compare(a: Tensor, b: Tensor, *, threads: int | None = None) -> Comparison:
    """Compare two tensors of one dtype and shape, of any strides and devices, in one pass.

    threads: at most so many; by default torch's own number, and one for small tensors.
    Raises TypeError for tensors whose bits cannot be read (`via_c`), ValueError where dtype or
    shape differ. A tensor that is not contiguous in host memory is copied first.
    """
    code = _comparable(a, b)
    a = via_c.contiguous(a)
    b = via_c.contiguous(b)
    different, max_ulp, first, difference, squares, squares_other, dot, ulps = via_c.compare(
        code, a, b, via_c.threads_for(a.nbytes, threads)
    )
    floating = a.dtype in FLOATING
    return Comparison(
        a.numel(),
        different,
        max_ulp if floating else None,
        None if first < 0 else first,
        difference,
        squares,
        squares_other,
        dot,
        ulps if floating else None,
    )


def bit_equal(a: Tensor, b: Tensor) -> bool:
    """Whether dtype, shape and every bit are the same. Raises TypeError as `compare` does."""
    via_c.dtype_code(a)
    via_c.dtype_code(b)
    if a.dtype is not b.dtype or a.shape != b.shape:
        return False
    return via_c.bytes_equal(via_c.contiguous(a), via_c.contiguous(b))


def count_different(a: Tensor, b: Tensor) -> int:
    """How many elements differ in any bit. Raises as `compare` does."""
    return compare(a, b).different


def ulp_distance(a: Tensor, b: Tensor) -> Tensor:
    """Number of floats from one element to the other, elementwise.

    a, b: one floating dtype, shape (...). Returns int64 (...) on the device of `a`; for a complex
    dtype (..., 2), the real and the imaginary halves.

    The bit patterns of a dtype are numbered in the order of their values, 0.0 at 0 and -0.0 at -1,
    and the distance is the difference of the numbers. So it is 0 exactly where the bits are equal,
    -0.0 to 0.0 is 1, the smallest negative to the smallest positive number is 3, and infinity is 1
    from the largest finite number. (The "fnuz" dtypes have no -0.0: there it is 2.) Different bits
    of which one is NaN, and float64 distances beyond int64, give ULP_MAX.

    Raises TypeError for dtypes without an ulp, and as `compare` does.
    """
    code = _comparable(a, b)
    if a.dtype not in FLOATING:
        known = ", ".join(sorted(dtype_name(dtype) for dtype in FLOATING))
        raise TypeError(
            f"dtype {dtype_name(a.dtype)} has no ulp; those that have: {known}. "
            "`count_different` takes every dtype"
        )
    device = a.device
    a = via_c.contiguous(a)
    b = via_c.contiguous(b)
    if a.dtype in REAL_OF:
        a, b = torch.view_as_real(a), torch.view_as_real(b)
        code = via_c.dtype_code(a)
    return via_c.ulp_distance(code, a, b).to(device)
