"""The oracle itself, against answers known from elsewhere: Python's floats, numpy, torch."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import bits_of, random_bits

from nondet_probe.ops.rational import FORMATS, exact_sum, round_to_bits, tensor_of_bits

DTYPES = list(FORMATS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_formats_are_those_of_torch(dtype: torch.dtype) -> None:
    form, info = FORMATS[dtype], torch.finfo(dtype)
    assert tensor_of_bits(form.infinity, dtype).item() == math.inf
    assert tensor_of_bits(form.infinity - 1, dtype).item() == info.max
    assert tensor_of_bits(1 << form.fraction_bits, dtype).item() == info.smallest_normal
    assert tensor_of_bits(1, dtype).item() == 2.0**form.lowest
    assert math.isnan(tensor_of_bits(form.quiet_nan, dtype).item())


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_alone_is_its_own_sum(dtype: torch.dtype) -> None:
    form = FORMATS[dtype]
    x = random_bits(500, dtype, np.random.default_rng(0), 0, (form.infinity >> form.fraction_bits))
    for element, bits in zip(x, bits_of(x), strict=True):
        expected = form.quiet_nan if bits & ~form.sign > form.infinity else bits
        assert round_to_bits(exact_sum(element), dtype) == expected


def test_exact_sums_are_those_of_fractions() -> None:
    x = random_bits(300, torch.float64, np.random.default_rng(1), 0, 2046)
    assert exact_sum(x) == sum((Fraction(value) for value in x.tolist()), Fraction(0))


def test_rounding_is_that_of_python_and_numpy() -> None:
    rng = np.random.default_rng(2)
    for scale in (-1080, -1074, -1030, -160, -149, -130, -20, 0, 100, 127, 500, 1000):
        for _ in range(40):
            value = Fraction(int(rng.integers(1, 1 << 62))) * Fraction(2) ** (scale - 61)
            try:
                expected = float(value)  # Python divides integers with correct rounding
            except OverflowError:
                expected = math.inf
            assert tensor_of_bits(round_to_bits(value, torch.float64), torch.float64) == expected
            # A value of 53 bits is a float64, which numpy rounds once more, to float32.
            with np.errstate(all="ignore"):
                narrow = float(np.float32(expected))
                half = float(np.float16(expected))
            if math.isfinite(expected):
                exact = Fraction(expected)
                assert tensor_of_bits(round_to_bits(exact, torch.float32), torch.float32) == narrow
                assert tensor_of_bits(round_to_bits(exact, torch.float16), torch.float16) == half


def test_ties_go_to_even() -> None:
    for whole, expected in ((256, 256), (257, 256), (258, 258), (259, 260)):
        bits = round_to_bits(Fraction(whole), torch.bfloat16)
        assert tensor_of_bits(bits, torch.bfloat16).item() == expected


def test_specials_and_zeros() -> None:
    inf, nan = math.inf, math.nan
    for values, expected in (
        ([], "0.0"),
        ([0.0, -0.0], "0.0"),
        ([-0.0, -0.0], "-0.0"),
        ([1.0, -1.0], "0.0"),
        ([inf, 1.0], "inf"),
        ([-inf, 1.0], "-inf"),
        ([inf, -inf], "nan"),
        ([nan, inf], "nan"),
    ):
        x = torch.tensor(values, dtype=torch.float32)
        assert str(tensor_of_bits(round_to_bits(exact_sum(x), x.dtype), x.dtype).item()) == expected
