"""The ladder on real recordings, of trainings in which one op strikes in one run of each pair."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nondet_probe.env import thread_count
from nondet_probe.probe.ladder import Asked, Seen, climb, seen
from nondet_probe.probe.recorder import recording
from nondet_probe.probe.recorder.control import Control
from nondet_probe.probe.recorder.recording import Recording
from nondet_probe.records.difference import TraceDifference
from nondet_probe.records.ladder import Rung

STEPS = 6
# In the order in which they are called; as a regular expression each finds the other's name.
NAMES = ("a+", "aa", "(b)")

_strikes = False


@torch.library.custom_op("ladder_test::racing", mutates_args=())
def racing(x: Tensor) -> Tensor:
    y = x.detach().clone(memory_format=torch.contiguous_format)
    if _strikes:
        y.view(torch.int32).add_(1 << 12)  # so much that nothing after it absorbs it
    return y


racing.register_autograd(lambda ctx, gradient: gradient)


class InBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return torch.ops.ladder_test.racing(gradient)


class Block(nn.Module):
    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.place == "input's gradient":
            x = InBackward.apply(x)
        x = self.linear(x)
        if self.place == "forward":
            x = torch.ops.ladder_test.racing(x)
        weight = self.linear.weight
        if self.place == "weight's gradient":
            weight = InBackward.apply(weight)
        return torch.tanh(x + weight.sum())


class Net(nn.Module):
    def __init__(self, place: str, where: str) -> None:
        super().__init__()
        self.place = place
        self.blocks = nn.ModuleDict({name: Block(place if name == where else "") for name in NAMES})

    def forward(self, x: Tensor) -> Tensor:
        for name in NAMES:
            x = self.blocks[name](x)
            if self.place == "between" and name == NAMES[1]:
                x = torch.ops.ladder_test.racing(x)
        return x


class Descent(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= 0.1 * torch.ops.ladder_test.racing(parameter.grad)


def train(place: str, where: str, strikes: set[int]) -> None:
    global _strikes
    torch.manual_seed(0)
    net = Net(place, where)
    optimizer = (Descent if place == "optimizer" else torch.optim.SGD)(net.parameters(), lr=0.1)
    for step in range(STEPS):
        _strikes = step in strikes
        optimizer.zero_grad()
        out = net(torch.randn(8, 4))
        if place == "loss":
            out = torch.ops.ladder_test.racing(out)
        out.square().mean().backward()
        optimizer.step()
    _strikes = False


@pytest.fixture(autouse=True)
def nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recording says of it takes longer than such a training."""
    monkeypatch.setattr(recording, "snapshot", dict)


class Program:
    """strikes: the steps in which the second run of each pair is struck, a set for each pair."""

    def __init__(self, folder: Path, place: str, where: str, strikes: Iterator[set[int]]) -> None:
        self.folder, self.place, self.where, self.strikes = folder, place, where, strikes
        self.asked: list[Asked] = []
        self.rungs: list[Rung] = []
        self.struck: set[int] = set()

    def climb(self) -> TraceDifference:
        return climb(self.pair, self.rungs.append, other_environment=False)

    def pair(self, asked: Asked) -> Seen:
        self.asked.append(asked)
        self.struck = next(self.strikes)
        folder = self.folder / str(len(self.asked))
        for name, strikes in (("a", set[int]()), ("b", self.struck)):
            with (
                thread_count(1),
                Recording(
                    folder / name,
                    level=asked.level,
                    names=asked.names,
                    schedule=Control(folder / name, asked.steps),
                    steps=asked.steps,
                ),
            ):
                train(self.place, self.where, strikes)
        return seen(folder)


PLACES = ("forward", "weight's gradient", "input's gradient", "between", "loss", "optimizer")
# What is known of the op's module. Of one that a backward pass of the user's own calls, nothing.
MODULES = {"forward": "Net.blocks.{}", "between": "Net"}


def check(program: Program, found: TraceDifference) -> None:
    assert found.op == "ladder_test.racing.default", program.rungs
    assert found.inputs_equal
    assert found.step == min(program.struck)
    module = MODULES.get(program.place)
    assert found.module == (module and module.format(program.where))


@pytest.mark.parametrize("place", PLACES)
def test_what_strikes_in_every_step_from_one_on(tmp_path: Path, place: str) -> None:
    program = Program(tmp_path, place, "aa", itertools.repeat({2, 3, 4, 5}))
    check(program, program.climb())
    ops = [asked for asked in program.asked if asked.level == "op"]
    assert len(program.asked) == 2 + len(ops)
    assert {asked.steps for asked in program.asked[1:]} == {(1, 3)}
    # The module that is to blame, alone, unless the op belongs to none.
    limited = [asked.names is not None for asked in ops]
    if place in ("loss", "optimizer"):
        assert limited == [False]
    else:
        assert limited == ([True] if place in MODULES else [True, False])


@pytest.mark.parametrize("seed", range(5))
def test_what_strikes_at_random_is_found(tmp_path: Path, seed: int) -> None:
    """In one module, in other steps each time."""
    draw = random.Random(seed)
    strikes = iter(lambda: set(draw.sample(range(STEPS), draw.randint(1, 2))), None)
    place, where = PLACES[seed % len(PLACES)], draw.choice(NAMES[1:])
    program = Program(tmp_path, place, where, strikes)
    check(program, program.climb())


def test_the_pair_that_agrees_leaves_the_answer_to_the_one_before(tmp_path: Path) -> None:
    strikes = itertools.chain([{3}, {3}], itertools.repeat(set[int]()))
    program = Program(tmp_path, "forward", "a+", strikes)
    found = program.climb()
    assert [rung.showed for rung in program.rungs] == ["inside"] * 2 + ["agree"] * 3
    assert (found.step, found.kind, found.module) == (3, "op", "Net.blocks.a+")
    assert found.meta_a is not None
    assert found.meta_a.level == "module"
