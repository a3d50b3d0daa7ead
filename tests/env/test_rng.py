"""Random streams: seeded alike they draw alike, and what was saved comes back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nondet_probe.env import RngState, preserved_rng, seed_all


def draws() -> list[object]:
    return [random.random(), float(np.random.rand()), torch.rand(3).tolist()]


def test_the_same_seed_gives_the_same_draws() -> None:
    with preserved_rng():
        seed_all(5)
        first = draws()
        assert draws() != first
        seed_all(5)
        assert draws() == first
        seed_all(6)
        assert draws() != first


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ValueError, match=r"0 to 2\*\*32 - 1"):
        seed_all(seed)


def test_capture_and_restore() -> None:
    with preserved_rng():
        state = RngState.capture()
        first = draws()
        assert not state.same_as(RngState.capture())
        state.restore()
        assert state.same_as(RngState.capture())
        assert draws() == first


@pytest.mark.parametrize(
    "draw", [random.random, np.random.rand, lambda: torch.rand(1)], ids=["python", "numpy", "torch"]
)
def test_every_stream_is_told_apart(draw: object) -> None:
    with preserved_rng():
        state = RngState.capture()
        draw()  # type: ignore[operator]
        assert not state.same_as(RngState.capture())


def test_preserved_through_an_exception_and_nesting() -> None:
    def draw_and_raise() -> None:
        draws()
        with preserved_rng():
            draws()
        raise KeyError

    before = RngState.capture()
    with pytest.raises(KeyError), preserved_rng():
        draw_and_raise()
    assert before.same_as(RngState.capture())
