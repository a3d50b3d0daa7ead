"""Small workloads of every kind that a probe must leave alone: none of them is nondeterministic."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nondet_probe.workload import Workload

__all__ = ["CLEAN"]

Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def made(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
) -> Workload:
    return Workload(
        model, optimizer, [x, x + 1, x * 2], loss or (lambda m, b: m(b).float().square().mean())
    )


def cnn(seed: int) -> Workload:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    labels = torch.randint(0, 3, (16,))
    return made(
        model,
        sgd(model),
        torch.randn(16, 1, 8, 8),
        lambda m, b: nn.functional.cross_entropy(m(b), labels),
    )


def transformer(optimizer: Optimizer) -> Callable[[int], Workload]:
    def factory(seed: int) -> Workload:
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        return made(layer, optimizer(layer), torch.randn(3, 5, 16))

    return factory


def perceptron(optimizer: Optimizer) -> Callable[[int], Workload]:
    def factory(seed: int) -> Workload:
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
        return made(model, optimizer(model), torch.randn(6, 4))

    return factory


class Odd(nn.Module):
    """Views, slices written in place, out= operands, expanded and transposed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.register_buffer("seen", torch.zeros(12, 4))
        self.seen: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            torch.add(self.seen[::2], x.detach().sum(), out=self.seen[::2])
            torch.mul(self.seen, 2, out=self.seen)
            self.seen[1:5].t().mul_(0.5)
            self.seen[:, 1].copy_(self.seen[:, 2])
            torch.sum(x.detach(), 0, keepdim=True, out=torch.empty(0, 6))
        y = (x @ self.weight).t().unsqueeze(0).expand(3, -1, -1)
        z = torch.zeros(3, 4, x.shape[0])
        z[:, 1:3] = y[:, 1:3]
        z[1].add_(y[1]).clamp_(min=0)
        return z.permute(2, 0, 1).reshape(x.shape[0], -1) + self.seen[0, 0]


def odd(seed: int) -> Workload:
    model = Odd()
    return made(model, sgd(model), torch.randn(5, 6))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6, padding_idx=0, max_norm=2.0)
        self.lstm = nn.LSTM(6, 8, num_layers=2, dropout=0.3, batch_first=True)
        self.gru = nn.GRU(8, 4, batch_first=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.table(tokens))
        last: torch.Tensor = self.gru(hidden)[0][:, -1]
        return last


def recurrent(seed: int) -> Workload:
    model = Recurrent()
    batches = [torch.randint(0, 11, (4, 5)) for _ in range(3)]
    return Workload(model, sgd(model), batches, lambda m, b: m(b).square().mean())


def mixed(seed: int) -> Workload:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(batch).float().square().mean()

    return made(model, sgd(model), torch.randn(4, 1, 8, 8), loss)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = checkpoint(self.block, x.requires_grad_(), use_reentrant=self.reentrant)
        return self.head(y)


def checkpointed(reentrant: bool) -> Callable[[int], Workload]:
    def factory(seed: int) -> Workload:
        model = Checkpointed(reentrant)
        workload = made(model, sgd(model), torch.randn(6, 4))
        workload.batches = [batch.detach() for batch in workload.batches]
        return workload

    return factory


def steps_of_its_own(seed: int) -> Workload:
    """Two backward passes, clipping, a scheduler, and a number read in the middle."""
    model = nn.Linear(4, 4)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)

    def step(workload: Workload, batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        for part in batch.chunk(2):
            model(part).square().mean().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        if norm.item() > 0:
            optimizer.step()
        scheduler.step()
        return norm

    workload = made(model, optimizer, torch.randn(6, 4))
    workload.step = step
    return workload


def closure(seed: int) -> Workload:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def step(workload: Workload, batch: Any) -> torch.Tensor:
        def evaluate() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            return loss

        return torch.as_tensor(optimizer.step(evaluate))

    workload = made(model, optimizer, torch.randn(6, 4))
    workload.step = step
    return workload


def inference(seed: int) -> Workload:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    workload = made(model, sgd(model), torch.randn(6, 4))
    workload.optimizer = None
    return workload


CLEAN: dict[str, Callable[[int], Workload]] = {
    "cnn": cnn,
    "transformer, Adam foreach": transformer(
        lambda m: torch.optim.Adam(m.parameters(), lr=0.01, foreach=True)
    ),
    "transformer, Adam fused": transformer(
        lambda m: torch.optim.Adam(m.parameters(), lr=0.01, fused=True)
    ),
    "AdamW amsgrad": perceptron(
        lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, amsgrad=True, foreach=True)
    ),
    "SGD fused": perceptron(lambda m: torch.optim.SGD(m.parameters(), lr=0.1, fused=True)),
    "Adagrad": perceptron(lambda m: torch.optim.Adagrad(m.parameters(), lr=0.1)),
    "views, out= and slices in place": odd,
    "recurrent, embedding": recurrent,
    "mixed precision": mixed,
    "checkpoint": checkpointed(False),
    "checkpoint, reentrant": checkpointed(True),
    "steps of its own": steps_of_its_own,
    "LBFGS": closure,
    "inference only": inference,
}
