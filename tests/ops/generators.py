"""Vectors on which sums go wrong: each name is a family, each family a few tensors.

All are 1-D and contiguous, made from fixed seeds with numpy (torch's own normal numbers differ
between instruction sets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from nondet_probe.ops.rational import FORMATS

__all__ = ["FAMILIES", "bits_of", "family", "from_bits", "from_values", "normal", "random_bits"]

_NUMPY_INTEGERS = {torch.float64: np.int64, torch.float32: np.int32}


def from_bits(patterns: list[int], dtype: torch.dtype) -> Tensor:
    """Elements with these bit patterns."""
    form = FORMATS[dtype]
    signed = [bits - (1 << form.width) if bits & form.sign else bits for bits in patterns]
    return torch.tensor(signed, dtype=form.integers).view(dtype)


def bits_of(x: Tensor) -> list[int]:
    """The bit patterns of all elements."""
    form = FORMATS[x.dtype]
    whole = x.contiguous().view(form.integers).reshape(-1).tolist()
    return [bits & ((1 << form.width) - 1) for bits in whole]


def from_values(values: list[Fraction | int | float], dtype: torch.dtype) -> Tensor:
    """Elements with these values; each must be one of the dtype."""
    form = FORMATS[dtype]
    patterns = []
    for value in values:
        exact = Fraction(value)
        sign = form.sign if exact < 0 else 0
        units = abs(exact) / Fraction(2) ** form.lowest
        assert units.denominator == 1, f"{value} is below the subnormals of {dtype}"
        biased = max(units.numerator.bit_length() - form.fraction_bits, 1)
        significand, rest = divmod(units.numerator, 1 << (biased - 1))
        assert rest == 0, f"{value} has too many bits for {dtype}"
        patterns.append(sign | ((biased - 1) << form.fraction_bits) + significand)
    return from_bits(patterns, dtype)


def _power(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def _top(dtype: torch.dtype) -> int:
    """log2 of the largest power of two."""
    form = FORMATS[dtype]
    return (form.infinity >> form.fraction_bits) - 1 + form.lowest + form.fraction_bits - 1


def _largest(dtype: torch.dtype) -> Fraction:
    return (2 - _power(1 - FORMATS[dtype].precision)) * _power(_top(dtype))


def normal(n: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """N(0, 1)."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(n)).to(dtype)


def random_bits(
    n: int, dtype: torch.dtype, rng: np.random.Generator, low: int, high: int
) -> Tensor:
    """Uniform bit patterns with biased exponents in [low, high]."""
    form = FORMATS[dtype]
    exponents = rng.integers(low, high + 1, n).tolist()
    fractions = rng.integers(0, 1 << form.fraction_bits, n).tolist()
    signs = rng.integers(0, 2, n).tolist()
    return from_bits(
        [
            (sign * form.sign) | exponent << form.fraction_bits | fraction
            for exponent, fraction, sign in zip(exponents, fractions, signs, strict=True)
        ],
        dtype,
    )


def _shuffled(x: Tensor, rng: np.random.Generator) -> Tensor:
    return x[torch.from_numpy(rng.permutation(x.numel()))]


def _biased_top(dtype: torch.dtype) -> int:
    form = FORMATS[dtype]
    return (form.infinity >> form.fraction_bits) - 1


Family = Callable[[torch.dtype, np.random.Generator], Iterator[Tensor]]
FAMILIES: dict[str, Family] = {}


def _family(function: Family) -> Family:
    FAMILIES[function.__name__] = function
    return function


def family(name: str, dtype: torch.dtype) -> list[Tensor]:
    """The tensors of one family."""
    return list(FAMILIES[name](dtype, np.random.default_rng(len(name))))


@_family
def zeros(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    yield torch.empty(0, dtype=dtype)
    for n in (1, 3, 64, 65, 5000):
        yield torch.zeros(n, dtype=dtype)
        yield -torch.zeros(n, dtype=dtype)
        mixed = -torch.zeros(n, dtype=dtype)
        mixed[n // 2] = 0.0
        yield mixed


@_family
def all_equal(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    form = FORMATS[dtype]
    tenth = bits_of(torch.tensor([0.1], dtype=dtype))[0]
    one = bits_of(torch.tensor([1.0], dtype=dtype))[0]
    least_normal, denormal, largest = 1 << form.fraction_bits, 1, form.infinity - 1
    for bits in (one, tenth, least_normal, denormal, largest, tenth | form.sign):
        for n in (1, 2, 3, 1000, 4097):
            yield from_bits([bits] * n, dtype)


@_family
def cancelling(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    for high in (_biased_top(dtype) // 2 + 2, _biased_top(dtype)):
        half = random_bits(700, dtype, rng, 0, high)
        pairs = _shuffled(torch.cat([half, -half]), rng)
        yield pairs
        yield torch.cat([pairs, from_bits([1], dtype)])
        yield torch.cat([from_bits([FORMATS[dtype].sign | 1], dtype), pairs])
        last = pairs.clone()
        last[5] = from_bits([bits_of(pairs)[5] ^ 1], dtype)[0]
        yield last


@_family
def half_way(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    form = FORMATS[dtype]
    at = min(_top(dtype), form.precision + 4)  # 2**at has a unit in the last place of 2**unit
    unit = at - form.fraction_bits
    all_ones = _power(at + 1) - _power(unit) if at < _top(dtype) else _power(at)
    for base in (_power(at), _power(at) + _power(unit), all_ones):
        for far in (None, 60, 100, 1000, 2000):
            for tiny in (-1, 1):
                values = [base, _power(unit - 1)]
                if far is not None:
                    values.append(tiny * max(_power(unit - 1 - far), _power(form.lowest)))
                yield from_values(values, dtype)
                yield from_values([-value for value in reversed(values)], dtype)


@_family
def double_rounding(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    """Just above half-way by less than the next wider format sees."""
    form = FORMATS[dtype]
    at = _top(dtype) - 1 if dtype is torch.float16 else 0
    for odd in (0, 1):
        base = _power(at) + odd * _power(at - form.fraction_bits)
        tiny = max(_power(at - 80), _power(form.lowest))
        for sign in (1, -1):
            yield from_values([base, _power(at - form.precision), sign * tiny], dtype)


@_family
def overflow_and_back(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    largest = _largest(dtype)
    edge = _power(_top(dtype) - FORMATS[dtype].precision)  # half an ulp of the largest
    for values in (
        [largest, largest, -largest],
        [-largest, -largest, largest],
        [largest, largest],
        [largest, edge],
        [-largest, -edge],
        [largest, edge, -max(edge * _power(-200), _power(FORMATS[dtype].lowest))],
        [largest] * 300 + [-largest] * 299 + [1],
        [largest] * 4 + [-largest] * 5,
    ):
        yield from_values(values, dtype)


@_family
def subnormals(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    form = FORMATS[dtype]
    yield random_bits(1000, dtype, rng, 0, 0)
    yield torch.cat([random_bits(1000, dtype, rng, 0, 0).abs() for _ in range(2)])
    least = _power(form.lowest)
    least_normal = least * 2**form.fraction_bits
    for values in (
        [1, least],
        [_largest(dtype), least, -_largest(dtype)],
        [least_normal, -least],
        [least_normal, least, -least_normal],
        [-least_normal, least],
        [-least_normal + least] * 3,
    ):
        yield from_values(values, dtype)


@_family
def powers_of_two(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    powers = [_power(e) for e in range(FORMATS[dtype].lowest, _top(dtype) + 1)]
    alternating = [value * (-1) ** i for i, value in enumerate(powers)]
    for values in (powers, powers[::-1], alternating):
        yield from_values(values, dtype)
        yield _shuffled(from_values(values, dtype), rng)


@_family
def bin_boundaries(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    """One vector at every scale of an octave of bins, and at both ends of the range."""
    form = FORMATS[dtype]
    small = random_bits(40, dtype, rng, 1, 4)
    least = _biased_top(dtype) - 5
    for shift in [*range(0, 81, 3), *range(max(least - 41, 0), least)]:
        if shift >= least:
            continue
        yield from_bits([bits + (shift << form.fraction_bits) for bits in bits_of(small)], dtype)


def _rising_exponents(dtype: torch.dtype, rng: np.random.Generator) -> Tensor:
    form = FORMATS[dtype]
    patterns = []
    for biased in range(1, _biased_top(dtype) + 1):
        fraction = int(rng.integers(0, 1 << form.fraction_bits))
        patterns.append((biased % 2) * form.sign | biased << form.fraction_bits | fraction)
    return from_bits(patterns, dtype)


@_family
def rising_maximum(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    rising = _rising_exponents(dtype, rng)
    yield rising
    yield rising.flip(0)
    yield torch.cat([rising, rising.flip(0)])  # a mountain
    yield rising.repeat_interleave(9)


@_family
def ill_conditioned(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    """Large pairs that cancel around a small rest: the condition number is their ratio."""
    top = _biased_top(dtype)
    for width in (10, 25, 50, 100, 200, 1000):
        low = max(top // 2 - width, 1)
        high = min(top // 2 + width, top)
        large = random_bits(500, dtype, rng, high - 2, high)
        small = random_bits(50, dtype, rng, low, low + 2)
        yield _shuffled(torch.cat([large, -large, small]), rng)


@_family
def random_patterns(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    top = _biased_top(dtype)
    for n in (2, 3, 7, 8, 9, 63, 64, 65, 1000, 4095, 4096, 4097):
        yield random_bits(n, dtype, rng, 0, top)


@_family
def infinities_and_nans(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    form = FORMATS[dtype]
    inf, minus_inf = form.infinity, form.infinity | form.sign
    payload, signalling = form.quiet_nan | 5, form.infinity | 3
    ones = bits_of(torch.ones(90, dtype=dtype))
    for specials in (
        [inf],
        [minus_inf],
        [inf, inf],
        [inf, minus_inf],
        [minus_inf, inf],
        [payload],
        [signalling | form.sign],
        [payload, signalling],
        [inf, payload],
        [payload | form.sign, minus_inf],
    ):
        yield from_bits(specials, dtype)
        yield from_bits(ones + specials + ones, dtype)
        yield from_bits([form.infinity - 1, *specials, *ones], dtype)
    yield random_bits(3000, dtype, rng, 0, _biased_top(dtype) + 1)


@_family
def outlier_in_each_block(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    x = normal(3 * 4096, dtype, 3)
    for outlier in (60, 100, 900):
        y = x.clone()
        y[::4096] = float(2.0 ** min(outlier, _top(dtype) - 3))
        yield y


@_family
def exponent_windows(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    """Windows around every width at which a faster way of adding stops being exact."""
    top = _biased_top(dtype)
    for width in (
        12,
        13,
        14,
        18,
        19,
        20,
        21,
        22,
        28,
        29,
        30,
        31,
        39,
        40,
        41,
        58,
        60,
        62,
        68,
        70,
        72,
    ):
        low = max(1, top // 3 - width // 2)
        if low + width <= top:
            yield random_bits(600, dtype, rng, low, low + width)


@_family
def carries(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    form = FORMATS[dtype]
    all_ones = ((_biased_top(dtype) // 2) << form.fraction_bits) | ((1 << form.fraction_bits) - 1)
    yield from_bits([all_ones] * 20000, dtype)
    yield from_bits([all_ones | form.sign] * 20000, dtype)


@_family
def plain(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    for n in (1, 2, 100, 8191, 8192, 8193, 16383, 16384, 16385, 33000):
        yield normal(n, dtype, n)
    yield normal(20000, dtype, 1).abs()
    yield torch.from_numpy(np.sin(np.arange(20000.0))).to(dtype)
    yield torch.from_numpy(np.exp(np.random.default_rng(2).normal(0, 3, 20000))).to(dtype)


@_family
def rising_across_blocks(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    """Blocks of growing and shrinking scale: frames move while they hold something."""
    top = _biased_top(dtype)
    for step in (7, 20, 40, 79):
        starts = [start for start in (1, 1 + step, 1 + 2 * step, 1 + 3 * step) if start + 3 <= top]
        parts = [random_bits(4096, dtype, rng, start, start + 2) for start in starts]
        yield torch.cat(parts)
        yield torch.cat([*parts[::-1], *parts])


@_family
def grid_after_a_rise(dtype: torch.dtype, rng: np.random.Generator) -> Iterator[Tensor]:
    """A small block, then larger ones that cancel: what was kept of the small one is the result."""
    zeros = torch.zeros(4096, dtype=dtype)
    middle = _biased_top(dtype) // 2
    for start in range(middle - 43, middle + 44) if middle > 100 else ():
        small = random_bits(3, dtype, rng, start, start)
        above = start + (
            100 if dtype is torch.float64 else 60
        )  # all bins but one of 40 bits are new
        large = random_bits(3, dtype, rng, above, above)
        yield torch.cat([small, zeros, large, -large])
