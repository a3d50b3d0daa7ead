"""`surely_equal` says yes only to tensors that are alike in every bit, and then nearly always."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nondet_probe.bits.dtypes import CODES
from nondet_probe.bits.via_c import surely_equal
from nondet_probe.env import thread_count

LARGE = 3_000_001  # elements of one byte: more than one thread, and a piece that is not whole


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_every_dtype_and_every_place(dtype: torch.dtype) -> None:
    data = torch.arange(64, dtype=torch.uint8)
    x = data.view(dtype)
    assert surely_equal([x], [data.clone().view(dtype)])
    for place in range(64):
        changed = data.clone()
        changed[place] ^= 1
        assert not surely_equal([x, x], [x, changed.view(dtype)])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", [0, 262_143, 262_144, 1_500_000, LARGE - 1])
def test_one_changed_byte_among_millions(place: int, threads: int) -> None:
    x = torch.zeros(LARGE, dtype=torch.uint8)
    y = x.clone()
    with thread_count(threads):
        assert surely_equal([x], [y])
        y[place] = 1
        assert not surely_equal([x], [y])


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.t(),
    "channels last": lambda x: x.reshape(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "a size of one": lambda x: x.reshape(1, 10, 12).transpose(0, 1),
    "empty": lambda x: x[:, :0],
    "a scalar": lambda x: x[0, 0].clone(),
}


@pytest.mark.parametrize("make", LAYOUTS.values(), ids=LAYOUTS)
def test_dense_layouts(make: Callable[[Tensor], Tensor]) -> None:
    one, other = (make(torch.arange(120.0).reshape(10, 12)) for _ in range(2))
    assert surely_equal([one], [other])
    if other.numel():
        other[(-1,) * other.dim()] = -1.0
        assert not surely_equal([one], [other])


def gap() -> Tensor:
    return torch.arange(12.0).reshape(3, 4)[:, ::2]


def overlapping() -> Tensor:
    return torch.arange(6.0).as_strided((2, 2, 2), (1, 1, 3))


UNSURE: dict[str, Callable[[], Any]] = {
    "gaps": gap,
    "expanded": lambda: torch.ones(1).expand(3),
    "overlapping": overlapping,
    "on meta": lambda: torch.ones(3, device="meta"),
    "lazily conjugated": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "a number": lambda: 1.0,
    "nothing": lambda: None,
    "an object": object,
    "sparse": lambda: torch.eye(2).to_sparse(),
}


@pytest.mark.parametrize("make", UNSURE.values(), ids=UNSURE)
def test_what_is_left_to_others(make: Callable[[], Any]) -> None:
    x = torch.ones(2)
    assert surely_equal([x], [x])
    assert not surely_equal([x, make()], [x, make()])


def test_what_differs_without_a_differing_byte() -> None:
    x = torch.zeros(2, 3)
    for other in (x.t().contiguous(), x.int(), x.t().contiguous().t(), x[:1]):
        assert not surely_equal([x], [other])
    assert not surely_equal([x], [x, x])
    assert not surely_equal([x], [])
    assert not surely_equal([torch.tensor(0.0)], [torch.tensor(-0.0)])
