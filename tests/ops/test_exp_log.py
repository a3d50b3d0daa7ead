"""exp and log of csrc/exp_log.hpp: their error against decimals, and one result on every level."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from generators import bits_of, random_bits
from torch import Tensor

from nondet_probe import _C
from nondet_probe.bits.dtypes import CODES
from nondet_probe.ops.rational import FORMATS

ISAS = _C.available_isas()
FLOATS = [torch.float32, torch.float64]
RANGE = {torch.float32: (-103.9, 88.7), torch.float64: (-745.0, 709.7)}


def exp(x: Tensor, isa: str = "") -> Tensor:
    result = torch.empty_like(x)
    _C.exp(CODES[x.dtype], x.data_ptr(), x.numel(), isa, result.data_ptr())
    return result


def log(x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    _C.log(x.data_ptr(), x.numel(), result.data_ptr())
    return result


def ulps(got: float, exact: Decimal, dtype: torch.dtype) -> float:
    """|got - exact| in units of the last place of exact."""
    form = FORMATS[dtype]
    value = Fraction(exact)
    exponent = math.frexp(value)[1] - form.precision if value else form.lowest
    return float(abs(Fraction(got) - value) / Fraction(2) ** max(exponent, form.lowest))


def worst(xs: Tensor, ys: Tensor, name: str) -> float:
    with localcontext() as context:
        context.prec = 40
        return max(
            ulps(y, getattr(Decimal(x), name)(), xs.dtype)
            for x, y in zip(xs.tolist(), ys.tolist(), strict=True)
        )


def grid(dtype: torch.dtype) -> Tensor:
    """All over the range, near 0 and near the ends of the reduced interval."""
    rng = np.random.default_rng(1)
    low, high = RANGE[dtype]
    halves = (np.arange(int(low / 0.7), int(high / 0.7), 3) + 0.5) * math.log(2)
    return torch.from_numpy(
        np.concatenate([rng.uniform(low, high, 2000), rng.normal(0, 1, 1500), halves])
    ).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_is_within_an_ulp(dtype: torch.dtype) -> None:
    x = grid(dtype)
    smallest = torch.finfo(dtype).smallest_normal
    y = exp(x)
    assert worst(x[y >= smallest], y[y >= smallest], "exp") < 1.0
    assert worst(x[y < smallest], y[y < smallest], "exp") < 1.5
    assert worst(x, y * (1 + 2 * torch.finfo(dtype).eps), "exp") > 1.5  # the measure does measure


def test_exp_is_near_that_of_fp64_for_many_floats() -> None:
    x = torch.linspace(-87.0, 88.7, 500_001)
    exact = x.double().exp()
    _, exponent = torch.frexp(exact)
    error = (exp(x).double() - exact).abs() / torch.ldexp(torch.ones_like(exact), exponent - 24)
    assert error.max().item() < 1.0


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_is_the_same_on_every_level(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(2)
    top = FORMATS[dtype].infinity >> FORMATS[dtype].fraction_bits
    x = torch.cat([grid(dtype), random_bits(3001, dtype, rng, 0, top)])
    expected = bits_of(exp(x, "portable"))
    for isa in ISAS:
        assert bits_of(exp(x, isa)) == expected, isa


@pytest.mark.parametrize("dtype", FLOATS)
def test_exp_at_the_ends(dtype: torch.dtype) -> None:
    given = torch.tensor([-math.inf, math.inf, math.nan, 0.0, -0.0, 1e4, -1e4], dtype=dtype)
    expected = torch.tensor([0.0, math.inf, math.nan, 1.0, 1.0, math.inf, 0.0], dtype=dtype)
    assert bits_of(exp(given)) == bits_of(expected)


def test_log_is_within_an_ulp() -> None:
    rng = np.random.default_rng(3)
    around = [np.exp2(rng.uniform(-1, 1, 1500)), np.exp2(rng.uniform(-1074, 1023, 1500))]
    ends = [5e-324, 2.0**-1022, 1.0 + 2.0**-52, 1.0 - 2.0**-53, math.sqrt(0.5), math.sqrt(2.0)]
    x = torch.from_numpy(np.concatenate([*around, ends]))
    assert worst(x, log(x), "ln") < 1.0
    assert worst(x, log(x) * (1 + 2.0**-50), "ln") > 1.0


def test_log_at_the_ends() -> None:
    given = torch.tensor([0.0, -0.0, 1.0, math.inf], dtype=torch.float64)
    expected = torch.tensor([-math.inf, -math.inf, 0.0, math.inf], dtype=torch.float64)
    assert bits_of(log(given)) == bits_of(expected)
    assert log(torch.tensor([-1.0, math.nan], dtype=torch.float64)).isnan().all()
