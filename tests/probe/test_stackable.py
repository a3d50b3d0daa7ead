"""What cannot be stacked is refused before training, each for its own reason; nothing is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from probe_workloads import cross_entropy
from torch import nn

from nondet_probe import ops
from nondet_probe.bits import bit_equal
from nondet_probe.env.rng import RngState, preserved_rng, seed_all
from nondet_probe.errors import UsageError
from nondet_probe.probe import stackable
from nondet_probe.probe.drive import build
from nondet_probe.probe.stackable import rehearse, require_stackable
from nondet_probe.probe.stacked import stacked
from nondet_probe.workload import Workload, take_step

pytestmark = pytest.mark.usefixtures("one_thread")


class Through(nn.Module):
    """A linear layer, and something behind it."""

    def __init__(self, behind: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.out, self.behind = nn.Linear(6, 3), behind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.behind(self.out(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.cell(x.unsqueeze(1))[0][:, -1])
        return found


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x.view(4, 4, 6))[..., :3].reshape(16, 3)
        return found


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 2


def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield torch.randn(16, 6), torch.randint(0, 3, (16,))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def of(
    model: nn.Module,
    optimizer: Callable[[nn.Module], Any] = sgd,
    **more: Any,
) -> Workload:
    return Workload(model, optimizer(model), batches(), **({"loss": cross_entropy} | more))


def lin() -> nn.Module:
    return nn.Linear(6, 3)


def hooked(model: nn.Module) -> nn.Module:
    model.register_forward_hook(lambda module, arguments, output: None)
    return model


def clipped(model: nn.Module) -> nn.Module:
    for value in model.parameters():
        value.register_hook(lambda gradient: gradient / gradient.norm())
    return model


def sharing() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    model[1].weight.data = model[0].weight.data[:3]
    return model


def scheduled(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = sgd(model)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return optimizer


def clipping(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = sgd(model)
    optimizer.register_step_pre_hook(
        lambda *_: nn.utils.clip_grad_norm_(model.parameters(), 1.0) and None
    )
    return optimizer


def branching(x: torch.Tensor) -> torch.Tensor:
    return x if x.sum() > 0 else -x


def exact(x: torch.Tensor) -> torch.Tensor:
    return x - ops.sum(x, variant="exact")


def outside(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([*model.parameters(), nn.Parameter(torch.zeros(2))], lr=0.1)


class Larger(torch.optim.SGD):
    """As whoever adds a trust ratio would derive it."""


REFUSED: dict[str, tuple[Callable[[], Workload], str]] = {
    "inference": (lambda: of(lin(), lambda model: None), "it has no optimizer"),
    "own step": (lambda: of(lin(), step=take_step), "it has a step of its own"),
    "lbfgs": (
        lambda: of(lin(), lambda model: torch.optim.LBFGS(model.parameters())),
        "LBFGS may mix the elements",
    ),
    "derived": (
        lambda: of(lin(), lambda model: Larger(model.parameters(), lr=0.1)),
        "Larger may mix the elements",
    ),
    "scheduler": (lambda: of(lin(), scheduled), "the optimizer's step was replaced"),
    "optimizer hook": (lambda: of(lin(), clipping), "the optimizer has hooks .optimizer step pre"),
    "outside": (lambda: of(lin(), outside), "no parameter of the model"),
    "module hook": (lambda: of(hooked(lin())), "the model has hooks .forward hooks"),
    "tensor hook": (lambda: of(clipped(lin())), "parameter 'weight' has hooks .backward hooks"),
    "memory": (lambda: of(sharing()), "'0.weight' and '1.weight' share memory"),
    "lazy": (lambda: of(nn.LazyLinear(3)), "has no values yet"),
    "branch": (lambda: of(Through(branching)), "RuntimeError: vmap: .*data-dependent"),
    "lstm": (lambda: of(Recurrent()), "aten::lstm.input"),
    "function": (lambda: of(Through(Double.apply)), "autograd.Function"),
    "own op": (lambda: of(Through(exact)), "nondet_probe::sum"),
    "other draws": (lambda: of(Attending()), "gradients of its first step lie 0[.]"),
    "vector": (
        lambda: of(lin(), loss=lambda model, batch: model(batch[0])),
        "not one floating-point number",
    ),
}


@pytest.mark.parametrize(("make", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_stacked_is_refused(make: Callable[[], Workload], told: str) -> None:
    built: list[Workload] = []

    def factory(seed: int) -> Workload:
        built.append(make())
        return built[-1]

    seed_all(11)
    before = RngState.capture()
    with pytest.raises(UsageError, match=told) as caught:
        stacked(factory, [], steps=2)
    assert str(caught.value).startswith("this training cannot be stacked: ")
    assert str(caught.value).endswith("follow its twins with the sequential engine")
    assert RngState.capture().same_as(before)
    if nn.parameter.is_lazy(next(built[0].model.parameters())):
        return
    with preserved_rng():
        expected = build(factory, 0).model.state_dict()
    assert all(
        bit_equal(value, expected[key]) for key, value in built[0].model.state_dict().items()
    )


def test_a_rehearsal_moves_no_stream_and_leaves_its_batch() -> None:
    workload = of(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    batch = next(iter(batches()))
    kept = batch[0].clone()
    before = RngState.capture()
    assert rehearse(workload, batch, 3) is None
    assert RngState.capture().same_as(before)
    assert bit_equal(batch[0], kept)


def test_every_op_of_torch_itself_may_loop_again_afterwards() -> None:
    """The switch that refuses ops without a batching rule is put back."""
    with pytest.raises(UsageError, match="nondet_probe::sum"):
        rehearse(of(Through(exact)), next(iter(batches())), 2)
    with pytest.warns(UserWarning, match="batching rule for aten::nonzero_static"):
        torch.vmap(torch.nonzero_static)(torch.ones(2, 3), size=3)


def test_gradients_that_do_not_reach_a_stacked_run_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hook on a parameter, were it not refused by name."""
    monkeypatch.setattr(stackable, "hooks_of", lambda owner: [])
    workload = of(clipped(lin()))
    require_stackable(workload)
    with pytest.raises(UsageError, match="does not reach the stacked one"):
        rehearse(workload, next(iter(batches())), 2)
