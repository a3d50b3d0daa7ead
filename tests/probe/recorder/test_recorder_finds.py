"""What a recording must find: one change planted in one of two runs, told by the first record that
differs; and nothing where nothing was changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from memory_trace import Memory, Recorded
from torch import nn
from trained import MODELS, OPTIMIZERS, Change, bits_of, build, nothing, train

from nondet_probe.records.trace import LEVELS, TraceRecord

STEP = 1
PAIRS = 50


def first_difference(a: Memory, b: Memory) -> TraceRecord | None:
    for one, other in zip(a.records, b.records, strict=True):
        assert one.site == other.site
        if one != other:
            return other
    return None


def trace(
    recorded: Recorded,
    level: str,
    change: Change | None = None,
    model: str = "transformer",
    optimizer: str = "adamw foreach",
    steps: int = 3,
    **arguments: Any,
) -> Memory:
    made = build(model, optimizer)
    change = nothing if change is None else change
    return recorded(lambda rec: train(made, steps, change), level=level, model=made[0], **arguments)


def at(where: str, act: Callable[[nn.Module, torch.optim.Optimizer, torch.Tensor], Any]) -> Change:
    """Does something once, in step STEP."""

    def change(
        place: str,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: torch.Tensor,
    ) -> None:
        if place == where and step == STEP:
            act(model, optimizer, batch)

    return change


def one_ulp(tensor: torch.Tensor) -> None:
    """By NumPy, so that no op is seen to do it."""
    bits_of(tensor).reshape(-1)[1] += 1


def state_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> torch.Tensor:
    return optimizer.state[parameter]["exp_avg"]


def test_pairs_of_identical_runs_have_no_difference(recorded: Recorded) -> None:
    grid = [(model, optimizer) for model in MODELS for optimizer in OPTIMIZERS]
    for pair in range(PAIRS):
        model, optimizer = grid[pair % len(grid)]
        level = LEVELS[pair % 3]
        a, b = (
            trace(recorded, level, None, model, optimizer, 2, outputs_only=pair % 2 == 0)
            for _ in range(2)
        )
        assert first_difference(a, b) is None, (model, optimizer, level)
        assert len(a.records) == len(b.records) > 10


WEIGHT = "layer.linear1.weight"

# Where a change is planted; and for each level the phase, kind and name of the record that must be
# the first to differ, with equal inputs where it has any.
PLANTED: dict[str, tuple[Change, dict[str, tuple[str, str, str]]]] = {
    "weight": (
        at("batch", lambda model, optimizer, batch: one_ulp(model.layer.linear1.weight)),
        {
            "module": ("setup", "parameter", WEIGHT),
            "op": ("setup", "parameter", WEIGHT),
        },
    ),
    "gradient": (
        at("gradient", lambda model, optimizer, batch: one_ulp(model.layer.linear1.weight.grad)),
        {
            "step": ("backward", "gradient", "gradient norm"),
            "module": ("backward", "gradient", WEIGHT),
            "op": ("backward", "gradient", WEIGHT),
        },
    ),
    "optimizer state": (
        at(
            "optimizer",
            lambda model, optimizer, batch: one_ulp(
                state_of(optimizer, model.layer.linear1.weight)
            ),
        ),
        {
            # Level step does not look there, and the parameter absorbs so small a change.
            "module": ("state", "optimizer", f"{WEIGHT}: exp_avg"),
            "op": ("optimizer", "op", "aten._foreach_lerp_.Scalar"),
        },
    ),
    "random state": (
        at("batch", lambda model, optimizer, batch: torch.default_generator.manual_seed(5)),
        {
            "step": ("forward", "loss", "loss"),
            "module": ("forward", "module", "MultiheadAttention"),
            "op": ("forward", "rng", "torch cpu"),
        },
    ),
    "batch order": (
        at(
            "batch",
            lambda model, optimizer, batch: bits_of(batch).__setitem__(
                slice(None), bits_of(batch)[::-1].copy()
            ),
        ),
        {
            "step": ("forward", "loss", "loss"),
            "module": ("forward", "module", "Linear"),
            "op": ("forward", "op", "aten.addmm.default"),
        },
    ),
}


@pytest.mark.parametrize(
    ("planted", "level"),
    [(planted, level) for planted, (_, expected) in PLANTED.items() for level in expected],
)
def test_a_planted_change_is_found_and_named(planted: str, level: str, recorded: Recorded) -> None:
    change, expected = PLANTED[planted]
    first = first_difference(trace(recorded, level), trace(recorded, level, change))
    assert first is not None
    assert first.step == STEP
    assert (first.site.phase, first.site.kind, first.site.name) == expected[level]


def test_level_step_names_the_weight_when_its_step_ends(recorded: Recorded) -> None:
    change, _ = PLANTED["weight"]
    plain, changed = trace(recorded, "step"), trace(recorded, "step", change)
    first = first_difference(plain, changed)
    assert first is not None
    assert first.step == STEP
    weights = [run.of(step=STEP, phase="state", name=WEIGHT)[0].outputs for run in (plain, changed)]
    assert weights[0] != weights[1]


@pytest.mark.parametrize("level", LEVELS)
def test_the_weights_that_training_begins_with_are_named(level: str, recorded: Recorded) -> None:
    def run(changed: bool) -> Memory:
        made = build("transformer", "sgd")
        if changed:
            one_ulp(made[0].layer.linear1.weight)
        return recorded(lambda rec: train(made, 1), level=level, model=made[0])

    first = first_difference(run(False), run(True))
    assert first is not None
    assert (first.step, first.site.phase, first.site.name) == (0, "setup", WEIGHT)


@pytest.mark.parametrize("level", ["module", "op"])
def test_a_buffer_that_was_changed_is_named(level: str, recorded: Recorded) -> None:
    change = at("batch", lambda model, optimizer, batch: one_ulp(model.norm.running_var))
    runs = [trace(recorded, level, one, "convolutional") for one in (None, change)]
    first = first_difference(*runs)
    assert first is not None
    assert (first.step, first.site.kind, first.site.name) == (STEP, "buffer", "norm.running_var")


def swapped(x: Any) -> None:
    x[:2] = x[1::-1].copy()


# On the bits of an activation, as a flat array of int32.
STRUCTURED: dict[str, Callable[[Any], object]] = {
    "one ulp": lambda x: x.__setitem__(3, x[3] + 1),
    "signs of a pair": lambda x: np.bitwise_xor(x[:2], np.int32(-(2**31)), out=x[:2]),
    "roll": lambda x: x.__setitem__(slice(None), np.roll(x, 1)),
    "swap": swapped,
    "payload of a NaN": lambda x: x.__setitem__(0, 0x7FC00001),
    "-0.0": lambda x: x.__setitem__(1, -(2**31)),
}
# What the run that is not changed has in the same places.
BEFORE = {"payload of a NaN": (0, 0x7FC00000), "-0.0": (1, 0)}


class Damaging(nn.Module):
    """Hands on what it gets, once with other bits."""

    def __init__(self, damage: Callable[[Any], object] | None, before: tuple[int, int] | None):
        super().__init__()
        self.damage, self.before, self.calls = damage, before, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 1
        if self.calls == STEP:
            bits = bits_of(x).reshape(-1)
            if self.before is not None:
                bits[self.before[0]] = self.before[1]
            if self.damage is not None:
                self.damage(bits)
        self.calls += 1
        return x


@pytest.mark.parametrize("level", ["module", "op"])
@pytest.mark.parametrize("kind", STRUCTURED)
def test_damage_by_what_no_dispatcher_sees(kind: str, level: str, recorded: Recorded) -> None:
    """The module that did it is the root: it was given the same and gave something else."""

    def run(damage: Callable[[Any], object] | None) -> Memory:
        made = build("lstm", "sgd")
        made[0].head = nn.Sequential(Damaging(damage, BEFORE.get(kind)), made[0].head)
        return recorded(lambda rec: train(made), level=level, model=made[0])

    plain, damaged = run(None), run(STRUCTURED[kind])
    first = first_difference(plain, damaged)
    assert first is not None
    assert (first.step, first.site.kind, first.site.module) == (STEP, "module", "head.0")
    assert first.inputs == plain.records[first.number].inputs


def test_outputs_only_still_sees_numbers_and_the_generator(recorded: Recorded) -> None:
    def run(scale: float, seed: int) -> Memory:
        def body(rec: object) -> None:
            x = torch.ones(64)
            torch.manual_seed(seed)
            torch.nn.functional.dropout(x * scale * 0.0, 0.5)

        return recorded(body, level="op", outputs_only=True)

    scaled = first_difference(run(1.0, 1), run(2.0, 1))
    assert scaled is not None
    assert scaled.site.name == "aten.mul.Tensor"
    drawn = first_difference(run(1.0, 1), run(1.0, 2))
    assert drawn is not None
    assert (drawn.site.kind, drawn.site.name) == ("rng", "torch cpu")
    assert "bernoulli" in (drawn.site.note or "") or "dropout" in (drawn.site.note or "")
