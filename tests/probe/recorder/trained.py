"""Small trainings to be recorded, with a place in each step where a test can change one thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nondet_probe.bits import digest
from nondet_probe.bits.digest import digests

BATCH = 4
Change = Callable[[str, int, nn.Module, torch.optim.Optimizer, torch.Tensor], object]
"""Called with ("batch", "gradient" or "optimizer", step, model, optimizer, batch): before the
forward, after the backward pass, and before the optimizer steps."""


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3 * 4 * 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).relu().flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.lstm(x.view(-1, 6, 6))
        return self.head(out[:, -1])


class Checkpointed(nn.Module):
    reentrant = False

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(36, 8)
        self.block = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.flatten(1))
        return self.head(checkpoint(self.block, x, use_reentrant=self.reentrant))


class Reentrant(Checkpointed):
    reentrant = True


class Attending(nn.Module):
    """Dropout, and scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.2, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x.view(-1, 6, 6))).mean(1))


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.layers(x.flatten(1))


class Compiled(nn.Module):
    """For torch.compile."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(36, 8), nn.GELU(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.flatten(1))


MODELS: dict[str, type[nn.Module]] = {
    "convolutional": Convolutional,
    "transformer": Attending,
    "lstm": Recurrent,
    "checkpoint": Checkpointed,
    "reentrant checkpoint": Reentrant,
    "autocast": Autocast,
    "compiled": Compiled,
}

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, foreach=False),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
}


def nothing(
    where: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor
) -> None:
    """No change."""


def build(model: str, optimizer: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    made = MODELS[model]()
    return made, OPTIMIZERS[optimizer](made.parameters())


def train(
    made: tuple[nn.Module, torch.optim.Optimizer],
    steps: int = 3,
    change: Change = nothing,
    call: Callable[..., torch.Tensor] | None = None,
) -> list[float]:
    """The losses. call: in the place of the model, such as a compiled one."""
    model, optimizer = made
    call = model if call is None else call
    losses = []
    for step in range(steps):
        draw = torch.Generator().manual_seed(step)
        x, y = torch.randn(BATCH, 1, 6, 6, generator=draw), torch.randn(BATCH, 1, generator=draw)
        optimizer.zero_grad()
        change("batch", step, model, optimizer, x)
        loss = (call(x) - y).square().mean()
        loss.backward()
        change("gradient", step, model, optimizer, x)
        change("optimizer", step, model, optimizer, x)
        optimizer.step()
        losses.append(loss.item())
    return losses


def ending(made: tuple[nn.Module, torch.optim.Optimizer], losses: list[float]) -> list[str]:
    """Every bit that a training ended with."""
    model, optimizer = made
    tensors = [*model.parameters(), *model.buffers()]
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    words = [one.hex for one in digests(tensors)]
    return [*words, digest(torch.get_rng_state()).hex, *(loss.hex() for loss in losses)]


def bits_of(tensor: torch.Tensor) -> Any:
    """The bits of a float32 tensor as a NumPy array that can be written: no op sees that."""
    return tensor.detach().numpy().view("int32")
