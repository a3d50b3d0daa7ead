"""A recording changes no bit of a training, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from memory_trace import Memory, Recorded
from trained import MODELS, OPTIMIZERS, build, ending, train

from nondet_probe.env.torch_private import has_compiled_code
from nondet_probe.records.trace import LEVELS

CASES = [(model, "adamw foreach") for model in MODELS] + [
    ("convolutional", optimizer) for optimizer in OPTIMIZERS if optimizer != "adamw foreach"
]


@pytest.mark.parametrize(("model", "optimizer"), CASES)
@pytest.mark.parametrize("level", LEVELS)
def test_training_ends_with_the_same_bits(
    model: str, optimizer: str, level: str, recorded: Recorded
) -> None:
    plain = build(model, optimizer)
    expected = ending(plain, train(plain))
    made = build(model, optimizer)
    losses: list[float] = []
    found = recorded(lambda rec: losses.extend(train(made)), level=level, model=made[0])
    assert ending(made, losses) == expected
    assert found.of(step=2)
    assert found.meta.coverage.not_covered == {}


def test_an_observer_that_changes_bits_is_noticed() -> None:
    """The planted offence: a hook that rounds what passes through."""
    plain, made = build("lstm", "sgd"), build("lstm", "sgd")
    made[0].head.register_forward_pre_hook(lambda _, args: args[0].bfloat16().float())
    assert ending(plain, train(plain)) != ending(made, train(made))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own code, by itself
def test_compiled_code_keeps_its_bits_during_and_after(recorded: Recorded) -> None:
    def three_parts(middle: Callable[[Callable[[], list[float]]], object]) -> list[list[str]]:
        torch.compiler.reset()
        made = build("compiled", "sgd")
        compiled = torch.compile(made[0])
        endings = []

        def part() -> list[float]:
            losses = train(made, 2, call=compiled)
            endings.append(ending(made, losses))
            return losses

        part()
        middle(part)
        part()
        return endings

    plain = three_parts(lambda part: part())
    found: list[Memory] = []
    watched = three_parts(lambda part: found.append(recorded(lambda rec: part(), level="op")))
    assert watched == plain
    assert has_compiled_code()
    assert any("torch.compile" in reason for reason in found[0].meta.coverage.not_covered)
    modules = {record.site.module for record in found[0].of(kind="module")}
    assert modules == {"Compiled"}, "the compiled model, and nothing of its inside"
