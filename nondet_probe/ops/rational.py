"""Sums as exact fractions, and their one rounding: slow, obvious, and independent of the kernels.

The references (`sum_ref`) are made of it. Elements are decoded from their bits with integers, so no
floating-point mode of the process can interfere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

__all__ = ["FORMATS", "Format", "exact_sum", "round_to_bits", "tensor_of_bits"]


@dataclass(frozen=True)
class Format:
    """An IEEE binary format. precision counts the hidden bit; lowest is log2 of the smallest
    subnormal; width is in bits."""

    width: int
    precision: int
    lowest: int
    integers: torch.dtype

    @property
    def fraction_bits(self) -> int:
        return self.precision - 1

    @property
    def infinity(self) -> int:
        exponent_bits = self.width - self.precision
        return ((1 << exponent_bits) - 1) << self.fraction_bits

    @property
    def quiet_nan(self) -> int:
        return self.infinity | 1 << (self.fraction_bits - 1)

    @property
    def sign(self) -> int:
        return 1 << (self.width - 1)


FORMATS: dict[torch.dtype, Format] = {
    torch.float64: Format(64, 53, -1074, torch.int64),
    torch.float32: Format(32, 24, -149, torch.int32),
    torch.bfloat16: Format(16, 8, -133, torch.int16),
    torch.float16: Format(16, 11, -24, torch.int16),
}


def _patterns(x: Tensor) -> list[int]:
    form = FORMATS[x.dtype]
    whole: list[int] = x.detach().contiguous().view(form.integers).reshape(-1).tolist()
    return [bits & ((1 << form.width) - 1) for bits in whole]


def exact_sum(x: Tensor) -> Fraction | float:
    """The sum of all elements. A float where no fraction is: inf, -inf, nan, or -0.0 when there
    are elements and all of them are -0.0."""
    form = FORMATS[x.dtype]
    patterns = _patterns(x)
    total = 0  # in units of the smallest subnormal
    specials: set[float] = set()
    for bits in patterns:
        magnitude = bits & ~form.sign
        biased, fraction = divmod(magnitude, 1 << form.fraction_bits)
        sign = -1 if bits & form.sign else 1
        if magnitude > form.infinity:
            return math.nan
        if magnitude == form.infinity:
            specials.add(sign * math.inf)
        elif biased == 0:
            total += sign * fraction
        else:
            total += sign * ((fraction | 1 << form.fraction_bits) << (biased - 1))
    if specials:
        return math.nan if len(specials) == 2 else specials.pop()
    if patterns and all(bits == form.sign for bits in patterns):
        return -0.0
    return total * Fraction(2) ** form.lowest


def round_to_bits(value: Fraction | float, dtype: torch.dtype) -> int:
    """The bit pattern of `value` (exact_sum's kind) to nearest in `dtype`, ties to even.

    NaN is the positive quiet NaN without payload.
    """
    form = FORMATS[dtype]
    if isinstance(value, float):
        if math.isnan(value):
            return form.quiet_nan
        sign = form.sign if math.copysign(1.0, value) < 0 else 0
        return sign | (form.infinity if value else 0)
    if value == 0:
        return 0
    sign = form.sign if value < 0 else 0
    value = abs(value)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if value < Fraction(2) ** exponent:
        exponent -= 1  # now 2**exponent <= value < 2**(exponent + 1)
    quantum_exponent = max(exponent - form.fraction_bits, form.lowest)
    quanta, rest = divmod(value, Fraction(2) ** quantum_exponent)
    twice = 2 * rest / Fraction(2) ** quantum_exponent
    if twice > 1 or (twice == 1 and quanta % 2 == 1):
        quanta += 1
    if quanta == 1 << form.precision:
        quanta >>= 1
        quantum_exponent += 1
    if quanta < 1 << form.fraction_bits:
        return sign | quanta  # subnormal
    biased = quantum_exponent - form.lowest + 1
    bits = biased << form.fraction_bits | (quanta - (1 << form.fraction_bits))
    return sign | min(bits, form.infinity)


def tensor_of_bits(bits: int, dtype: torch.dtype) -> Tensor:
    """A 0-d tensor of `dtype` with this bit pattern."""
    form = FORMATS[dtype]
    signed = bits - (1 << form.width) if bits & form.sign else bits
    return torch.tensor(signed, dtype=form.integers).view(dtype)
