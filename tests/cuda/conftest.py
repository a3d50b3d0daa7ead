"""Where the kernels for GPUs run in these tests: on the emulated grid, and on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from emulated import emulated
from places import GPU, Place, emulated_place

from nondet_probe.bits import device

Grid = Callable[[int, int], None]


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The emulated grid, then a GPU."""
    return GPU if request.param == "gpu" else emulated_place(monkeypatch)


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> Grid:
    """via_cuda launches on the emulated grid; call it with a seed, for the order of warps and
    blocks, and the number of blocks of the launches to come (0: as the kernels choose)."""
    monkeypatch.setattr(device, "_load", emulated)

    def launches(seed: int, blocks: int = 0) -> None:
        emulated().seed(seed, 1 + seed % 5)
        monkeypatch.setattr(device, "_BLOCKS", blocks)

    launches(1, 0)
    return launches
