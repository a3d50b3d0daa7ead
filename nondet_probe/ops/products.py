"""Sums of products as exact fractions: for the references of ops that multiply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from nondet_probe.ops.rational import exact_sum

__all__ = ["exact_dot", "numbers"]


def numbers(x: Tensor) -> list[Fraction | float]:
    """The elements of a 1-D tensor; floats where no fraction is: inf, -inf, nan and -0.0."""
    return [exact_sum(element) for element in x]


def _negative(value: Fraction | float) -> bool:
    return math.copysign(1.0, value) < 0 if isinstance(value, float) else value < 0


def _product(x: Fraction | float, y: Fraction | float) -> Fraction | float:
    negative = _negative(x) != _negative(y)
    if math.isnan(x) or math.isnan(y):
        return math.nan
    if math.isinf(x) or math.isinf(y):
        if x == 0 or y == 0:
            return math.nan
        return -math.inf if negative else math.inf
    if x == 0 or y == 0:
        return -0.0 if negative else Fraction(0)
    return Fraction(x) * Fraction(y)


def exact_dot(
    x: Sequence[Fraction | float], y: Sequence[Fraction | float]
) -> Fraction | float:
    """The sum of all x[i] * y[i], of the kind that `numbers` gives: -0.0 when there are products
    and all of them are -0.0."""
    products = [_product(*pair) for pair in zip(x, y, strict=True)]
    specials = {value for value in products if isinstance(value, float) and value != 0}
    if specials:
        return specials.pop() if len(specials) == 1 else math.nan
    if products and all(isinstance(value, float) for value in products):
        return -0.0
    return sum((value for value in products if isinstance(value, Fraction)), Fraction(0))
