"""V_s, V_ermv and V_c by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nondet_probe.metrics import MEASURES, v_c, v_ermv, v_s

INF, NAN = math.inf, math.nan


def one(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize(
    ("expected", "found", "value"),
    [
        (4.0, 3.0, 0.25),
        (4.0, 5.0, -0.25),
        (-4.0, 3.0, 0.25),
        (4.0, -4.0, 0.0),  # |S_nd / S_d| does not see the sign
        (4.0, 4.0, 0.0),
        (0.0, 2.0, -INF),
        (0.0, -0.0, 0.0),
        (4.0, INF, -INF),
        (INF, INF, 0.0),
        (INF, 4.0, 1.0),
        (NAN, NAN, 0.0),
        (1.0, 1.0 + 2.0**-52, -(2.0**-52)),
    ],
)
def test_v_s(expected: float, found: float, value: float) -> None:
    assert v_s(one(expected), one(found)) == value
    assert v_s(one(expected)[0], one(found)[0]) == value


@pytest.mark.parametrize(("expected", "found"), [(1.0, NAN), (NAN, 1.0), (0.0, NAN)])
def test_v_s_of_what_is_no_number(expected: float, found: float) -> None:
    assert math.isnan(v_s(one(expected), one(found)))


def test_v_s_is_of_one_number() -> None:
    with pytest.raises(ValueError, match="got 2"):
        v_s(torch.ones(2), torch.ones(2))


def test_v_ermv_and_v_c() -> None:
    # |1-2|/1 + |-4+3|/4 + 0 + |8-8|/8 = 1.25 over 4 elements; two of them differ.
    a = torch.tensor([[1.0, -4.0], [0.0, 8.0]])
    b = torch.tensor([[2.0, -3.0], [0.0, 8.0]])
    assert v_ermv(a, b) == 0.3125
    assert v_c(a, b) == 0.5
    # The other way round the denominators are those of b: (1/2 + 1/3)/4.
    assert v_ermv(b, a) == (1 / 2 + 1 / 3) / 4


def test_small_elements_count_in_full() -> None:
    """1e-8 in the denominator would make this 1e-12."""
    a, b = torch.tensor([1e-20]), torch.tensor([2e-20])
    assert 0.99 < v_ermv(a, b) < 1.01


def test_zeros_and_what_is_no_number() -> None:
    assert v_ermv(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0])) == INF
    zeros = torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])
    assert v_ermv(*zeros) == 0.0
    assert v_c(*zeros) == 0.5
    assert v_ermv(torch.tensor([NAN, 2.0]), torch.tensor([NAN, 1.0])) == 0.25
    assert math.isnan(v_ermv(torch.tensor([NAN, 2.0]), torch.tensor([1.0, 1.0])))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_one_ulp_is_seen_in_every_dtype(dtype: torch.dtype) -> None:
    a = torch.linspace(1, 2, 10).to(dtype)
    b = a.clone()
    b.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])[3] += 1
    assert v_c(a, b) == 0.1
    assert 0 < v_ermv(a, b) < 0.01
    assert v_ermv(a, a) == v_c(a, a) == 0.0


def test_nothing_and_refusals() -> None:
    nothing = torch.empty(0)
    assert v_ermv(nothing, nothing) == v_c(nothing, nothing) == 0.0
    for other in (torch.ones(3), torch.ones(2, dtype=torch.float64)):
        with pytest.raises(ValueError, match="one dtype and shape"):
            v_c(torch.ones(2), other)
    assert list(MEASURES) == ["V_s", "V_ermv", "V_c"]
