"""The emulated grid shows what it is there to show."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from emulated import built


@pytest.fixture(scope="module")
def planted() -> ModuleType:
    return built("_planted", [Path(__file__).with_name("planted.cu")])


def test_a_missing_barrier_is_seen(planted: ModuleType) -> None:
    x = torch.arange(256, dtype=torch.float32)
    expected = torch.roll(x, -32)
    for barrier in (True, False):
        wrong = 0
        for seed in range(10):
            planted.seed(seed)
            result = torch.empty(256)
            planted.no_barrier(x.data_ptr(), result.data_ptr(), barrier)
            wrong += not torch.equal(result.view(torch.int32), expected.view(torch.int32))
        assert (wrong == 0) == barrier


def test_a_barrier_that_not_all_reach_is_an_error(planted: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="wait at different barriers"):
        planted.half_a_barrier(torch.empty(256).data_ptr())


def test_atomics_arrive_in_the_order_of_the_seed(planted: ModuleType) -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(1))

    def result(seed: int) -> int:
        planted.seed(seed)
        total = torch.zeros(1)
        planted.hidden_atomic_add(x.data_ptr(), 64, total.data_ptr())
        return int(total.view(torch.int32).item())

    assert len({result(seed) for seed in range(20)}) > 1
    assert result(3) == result(3)
