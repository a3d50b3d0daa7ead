"""A stacked step is the step of each member: what the optimizers do acts on each element alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from probe_workloads import cross_entropy
from torch import nn

from nondet_probe.bits import bit_equal
from nondet_probe.probe.members import Members
from nondet_probe.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")

MEMBERS, STEPS = 7, 5
KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {"lr": 0.1}),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("adam", {"lr": 0.01, "weight_decay": 0.01}),
    ("adam", {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.95)}),
    ("adamw", {"lr": 0.01, "weight_decay": 0.1}),
]


def made(kind: str, settings: dict[str, Any]) -> Workload:
    torch.manual_seed(0)
    # 13 and 3 elements a row: members begin anywhere in a vector, and all end beyond a whole one.
    model = nn.Sequential(nn.Linear(5, 13), nn.Tanh(), nn.Linear(13, 3))
    return Workload(model, KINDS[kind](model.parameters(), **settings), (), cross_entropy)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    own = torch.Generator().manual_seed(step)
    return torch.randn(9, 5, generator=own), torch.randint(0, 3, (9,), generator=own)


@pytest.mark.parametrize("foreach", [False, True], ids=["single", "foreach"])
@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_a_stacked_update_is_that_of_each_member(
    kind: str, settings: dict[str, Any], foreach: bool
) -> None:
    """Given its gradients, the same optimizer on one member's tensors alone gives the same bits."""
    settings = settings | {"foreach": foreach}
    members = Members(made(kind, settings), MEMBERS)
    for number in range(MEMBERS):
        members.parameters["0.weight"].data[number, 0, 0] += number
    alone = [
        [value[number].detach().clone() for value in members.parameters.values()]
        for number in range(MEMBERS)
    ]
    optimizers = [KINDS[kind](own, **settings) for own in alone]
    for step in range(STEPS):
        members.backward(batch(step))
        for number, own in enumerate(alone):
            for mine, value in zip(own, members.parameters.values(), strict=True):
                assert value.grad is not None
                mine.grad = value.grad[number].clone()
        members.update()
        for number, (own, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            optimizer.step()
            seen = members.member(number)
            assert seen.optimizer is not None
            for mine, value in zip(own, seen.model.parameters(), strict=True):
                assert bit_equal(mine, value.detach())
                theirs = seen.optimizer.state.get(value, {})
                assert optimizer.state.get(mine, {}).keys() == theirs.keys()
                for key, one in optimizer.state.get(mine, {}).items():
                    assert one is theirs[key] or bit_equal(one, theirs[key]), key
    assert not bit_equal(alone[0][0], alone[1][0])


def test_an_update_that_mixes_members_would_be_seen() -> None:
    """The plant for the test above: a norm over the whole stack is not that of each member."""
    members = Members(made("sgd", {"lr": 0.1}), MEMBERS)
    members.backward(batch(0))
    before = members.parameters["0.weight"].grad
    assert before is not None
    alone = before[0].clone()
    nn.utils.clip_grad_norm_(members.parameters.values(), 1e-3)
    own = nn.Parameter(torch.zeros_like(alone))
    own.grad = alone
    nn.utils.clip_grad_norm_([own], 1e-3)
    assert not bit_equal(own.grad, before[0])


def test_state_that_was_there_is_every_member_s() -> None:
    workload = made("adam", {"lr": 0.01})
    assert workload.optimizer is not None
    workload.loss(workload.model, batch(0)).backward()
    workload.optimizer.step()
    first = next(workload.model.parameters())
    kept = workload.optimizer.state[first]["exp_avg"].clone()
    members = Members(workload, 3)
    seen = members.member(2)
    assert seen.optimizer is not None
    state = seen.optimizer.state[next(seen.model.parameters())]
    assert bit_equal(state["exp_avg"], kept)
    assert state["step"].item() == 1
    members.step(batch(1))
    assert state["step"].item() == 2


def test_a_member_is_a_view_and_the_model_of_the_workload_stays() -> None:
    workload = made("sgd", {"lr": 0.1})
    before = [value.detach().clone() for value in workload.model.parameters()]
    members = Members(workload, 3)
    first = next(iter(members.member(1).model.parameters()))
    members.step(batch(0))
    assert bit_equal(first.detach(), members.parameters["0.weight"].detach()[1])
    assert not bit_equal(first.detach(), before[0])
    assert all(map(bit_equal, before, (value.detach() for value in workload.model.parameters())))
    assert all(value.grad is None for value in workload.model.parameters())
    model = members.model(1)
    assert model is workload.model
    assert bit_equal(next(model.parameters()).detach(), first.detach())


def test_a_loss_that_is_no_number_is_an_error() -> None:
    workload = made("sgd", {"lr": 0.1})
    workload.loss = lambda model, given: model(given[0]).square()
    with pytest.raises(ValueError, match="not one floating-point number: 'shape"):
        Members(workload, 2).step(batch(0))
