"""Every generator's state at each step's start: one draw from any is seen, reading is none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from fake_writer import FakeWriter

from nondet_probe.env import RngState, preserved_rng, seed_all
from nondet_probe.env.torch_private import TorchDispatchMode
from nondet_probe.probe.recorder.generators import Generators
from nondet_probe.probe.recorder.sink import Sink

DRAWS: dict[str, tuple[str, Callable[[], object]]] = {
    "random": ("python", random.random),
    "gauss": ("python", lambda: random.gauss(0, 1)),
    "numpy": ("numpy", np.random.rand),
    "torch": ("torch cpu", lambda: torch.rand(1)),
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with preserved_rng():
        seed_all(7)
        yield


def states(*between: Callable[[], object]) -> list[dict[str, object]]:
    """What was recorded at the start of each step, `between` called in the steps."""
    writer = FakeWriter()
    sink = Sink(writer)
    with Generators(sink):
        sink.begin_step_if_setup()
        for call in between:
            call()
            sink.end_step()
    sink.close()
    assert {(r.site.phase, r.site.kind) for r in writer.records} == {("data", "rng")}
    return [
        {r.site.name: r.outputs for r in writer.records if r.step == step}
        for step in range(len(between) + 1)
    ]


@pytest.mark.parametrize("way", DRAWS)
def test_a_draw_moves_the_record_of_its_generator_alone(way: str) -> None:
    name, draw = DRAWS[way]
    before, after, again = states(draw, lambda: None)
    assert set(before) == {"python", "numpy", "torch cpu"}
    assert {key for key in before if before[key] != after[key]} == {name}
    assert after == again


def test_the_second_of_a_pair_of_normal_numbers_is_a_draw_too() -> None:
    np.random.normal()  # it keeps the second one, and gives it without drawing any bits
    before, after = states(np.random.normal)
    assert before["numpy"] != after["numpy"]
    assert before["python"] == after["python"]


def test_another_kind_of_generator_behind_numpy() -> None:
    kept = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        before, after, again = states(np.random.rand, lambda: None)
    finally:
        np.random.set_bit_generator(kept)
    assert before["numpy"] != after["numpy"] == again["numpy"]


def test_reading_draws_nothing_and_no_mode_sees_it() -> None:
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func)
            return func(*args, **(kwargs or {}))

    before = RngState.capture()
    with Watch():
        states(lambda: None)
    assert RngState.capture().same_as(before)
    assert not seen
