"""Sums of products and square roots in integers: what the references of `dot`, `norm`, `var` and
`cumsum` are made of, as `rational.py` is for `sum`. Slow, obvious, and independent of the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import torch
from torch import Tensor

from nondet_probe.ops.rational import FORMATS, round_to_bits

__all__ = ["add_up", "elements", "exact_dot", "multiply", "root_to_bits"]

Exact = Fraction | float
"""A fraction, or the float that is none: inf, -inf, nan, -0.0."""


def elements(x: Tensor) -> list[Exact]:
    """All elements in row-major order."""
    form = FORMATS[x.dtype]
    unit = Fraction(2) ** form.lowest
    patterns = x.detach().cpu().contiguous().view(form.integers).reshape(-1).tolist()
    found: list[Exact] = []
    for pattern in patterns:
        bits = pattern & ((1 << form.width) - 1)
        negative = bool(bits & form.sign)
        magnitude = bits & ~form.sign
        biased, fraction = divmod(magnitude, 1 << form.fraction_bits)
        if magnitude > form.infinity:
            found.append(math.nan)
        elif magnitude == form.infinity:
            found.append(-math.inf if negative else math.inf)
        elif magnitude == 0:
            found.append(-0.0 if negative else Fraction(0))
        else:
            whole = fraction if biased == 0 else (fraction | 1 << form.fraction_bits) << biased - 1
            found.append(-whole * unit if negative else whole * unit)
    return found


def multiply(a: Exact, b: Exact) -> Exact:
    """a b. Like Exact itself a fraction where it is one."""
    if isinstance(a, Fraction) and isinstance(b, Fraction) and a and b:
        return a * b
    signs = [-1.0 if math.copysign(1, x) < 0 else 1.0 for x in (a, b)]
    sizes = [abs(x) if isinstance(x, float) else float(x != 0) for x in (a, b)]
    product = signs[0] * sizes[0] * signs[1] * sizes[1]
    return Fraction(0) if str(product) == "0.0" else product


def add_up(terms: Iterable[Exact]) -> Exact:
    """The sum; -0.0 where there are terms and all of them are -0.0."""
    total, specials, only_negative_zeros = Fraction(0), set(), None
    for term in terms:
        if isinstance(term, Fraction):
            total += term
        elif term != 0:
            specials.add("nan" if math.isnan(term) else term)
        negative_zero = isinstance(term, float) and term == 0
        only_negative_zeros = negative_zero and only_negative_zeros is not False
    if specials:
        return math.nan if len(specials) > 1 or "nan" in specials else float(specials.pop())
    return -0.0 if only_negative_zeros else total


def exact_dot(a: Tensor, b: Tensor) -> Exact:
    """The sum of the products of corresponding elements."""
    return add_up(multiply(x, y) for x, y in zip(elements(a), elements(b), strict=True))


def root_to_bits(square: Exact, dtype: torch.dtype) -> int:
    """The bit pattern of the square root, to nearest in `dtype`, ties to even."""
    if isinstance(square, float) or square == 0:
        return round_to_bits(math.sqrt(square) if square else Fraction(0), dtype)
    # Far more bits than any format has; half a unit stands for what lies beyond them.
    places = 200 + max(0, square.denominator.bit_length() - square.numerator.bit_length())
    scaled = square * Fraction(4) ** places
    root = math.isqrt(scaled.numerator // scaled.denominator)
    rest = Fraction(0) if root * root == scaled else Fraction(1, 2)
    return round_to_bits((root + rest) / Fraction(2) ** places, dtype)
