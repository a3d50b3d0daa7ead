"""Sums of products as exact fractions: for the references of ops that multiply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from nondet_probe.ops.rational import FORMATS

__all__ = ["exact_dot", "numbers"]

# No product of two numbers of any format has bits below 2**-_PLACES.
_PLACES = 2148


def numbers(x: Tensor) -> list[Fraction | float]:
    """The elements of a 1-D tensor; floats where no fraction is: inf, -inf, nan and -0.0."""
    form = FORMATS[x.dtype]
    hidden = 1 << form.fraction_bits
    unit = Fraction(2) ** form.lowest
    found: list[Fraction | float] = []
    for signed in x.detach().contiguous().view(form.integers).tolist():
        magnitude = signed & (form.sign - 1)
        biased, fraction = divmod(magnitude, hidden)
        if magnitude > form.infinity:
            found.append(math.nan)
        elif magnitude == form.infinity:
            found.append(-math.inf if signed < 0 else math.inf)
        elif magnitude == 0:
            found.append(-0.0 if signed < 0 else Fraction(0))
        else:
            units = (fraction | hidden) << (biased - 1) if biased else fraction
            found.append((-units if signed < 0 else units) * unit)
    return found


def _negative(value: Fraction | float) -> bool:
    return math.copysign(1.0, value) < 0 if isinstance(value, float) else value < 0


def _without_fraction(x: Fraction | float, y: Fraction | float) -> float:
    """x * y where it is inf, -inf, nan, 0.0 or -0.0."""
    negative = _negative(x) != _negative(y)
    if x != x or y != y:
        return math.nan
    if x == 0 or y == 0:
        if x in (math.inf, -math.inf) or y in (math.inf, -math.inf):
            return math.nan
        return -0.0 if negative else 0.0
    return -math.inf if negative else math.inf


def exact_dot(x: Sequence[Fraction | float], y: Sequence[Fraction | float]) -> Fraction | float:
    """The sum of all x[i] * y[i], of the kind that `numbers` gives: -0.0 when there are products
    and all of them are -0.0."""
    total = 0  # in units of 2**-_PLACES
    others: set[str] = set()
    for left, right in zip(x, y, strict=True):
        if isinstance(left, Fraction) and isinstance(right, Fraction) and left and right:
            places = left.denominator.bit_length() + right.denominator.bit_length() - 2
            total += (left.numerator * right.numerator) << (_PLACES - places)
            others.add("fraction")
        else:
            others.add(str(_without_fraction(left, right)))
    if others & {"nan", "inf", "-inf"}:
        infinite = others & {"nan", "inf", "-inf"}
        return float(infinite.pop()) if len(infinite) == 1 else math.nan
    if others == {"-0.0"}:
        return -0.0
    return Fraction(total, 1 << _PLACES)
