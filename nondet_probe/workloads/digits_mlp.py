"""`digits-mlp`: fully connected networks on scikit-learn's handwritten digits, of any depth.

A family to ask what makes one changed bit grow: from a linear model, whose training is convex, to
eight hidden layers, with a kinked or a smooth activation, with and without BatchNorm, on mini
batches or on all images at once. A member is named `digits-mlp-<depth>-<activation>`, and then
`-norm` and `-full` where it has these; the linear ones `digits-mlp-0` and `digits-mlp-0-full`.
`digits-mlp` alone is `digits-mlp-1-relu`. All have the same width, start and optimizer, so that
they differ in what their names say.

SmeLU is the smooth ReLU of Shamir, Lin and Coviello, "Smooth activations and reproducibility in
deep networks" (2020): with a half-width of b,

    f(x) = 0                  where x <= -b
           (x + b)^2 / (4 b)  between
           x                  where x >= b
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product, repeat

import torch
from torch import nn

from nondet_probe.errors import unknown_name
from nondet_probe.workload import Workload, WorkloadFactory
from nondet_probe.workloads._batches import (
    Batch,
    Restartable,
    accuracy,
    classification_loss,
    shuffled,
)
from nondet_probe.workloads._digits import digits, split

__all__ = ["DEPTHS", "Shape", "digits_mlp", "smelu", "variant"]

DEPTHS = range(9)  # hidden layers
WIDTH = 64
BATCH = 256
HALF_WIDTH = 1.0  # of SmeLU's curved part: the pre-activations begin with a variance near 1


def smelu(x: torch.Tensor, half_width: float = HALF_WIDTH) -> torch.Tensor:
    """The formula above, elementwise: a parabola that ends in a straight line."""
    curved = torch.clamp(x + half_width, 0.0, 2.0 * half_width)
    return curved.square() / (4.0 * half_width) + torch.relu(x - half_width)


_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "smelu": smelu,
}


@dataclass(frozen=True)
class Shape:
    """A member of the family.

    depth: hidden layers; activation: "relu" or "smelu", of no effect at depth 0; norm: BatchNorm
    before each activation; full: every batch is the whole training part.
    """

    depth: int = 1
    activation: str = "relu"
    norm: bool = False
    full: bool = False

    @property
    def name(self) -> str:
        """What follows `digits-mlp-`."""
        hidden = f"-{self.activation}" + ("-norm" if self.norm else "") if self.depth else ""
        return f"{self.depth}{hidden}" + ("-full" if self.full else "")


class DigitsMlp(nn.Module):
    """Images [B, 1, 8, 8] float32 to logits [B, 10]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        sizes = [64, *[WIDTH] * shape.depth]
        self.hidden = nn.ModuleList(nn.Linear(*both) for both in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(shape.norm * shape.depth))
        self.out = nn.Linear(sizes[-1], 10)
        self.activation = _ACTIVATIONS[shape.activation]
        for layer in (*self.hidden, self.out):
            # Variances neither vanish nor explode in eight layers.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.flatten(1)
        for place, layer in enumerate(self.hidden):
            x = layer(x)
            if len(self.norms):
                x = self.norms[place](x)
            x = self.activation(x)
        logits: torch.Tensor = self.out(x)
        return logits


def _workload(shape: Shape, seed: int) -> Workload:
    images, labels = digits()
    train, held_out = split(seed)

    def batches() -> Iterator[Batch]:
        pieces = repeat(train) if shape.full else shuffled(train, BATCH, seed)
        for items in pieces:
            yield images[items], labels[items]

    model = DigitsMlp(shape)
    return Workload(
        model,
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        batches=Restartable(batches),
        loss=classification_loss,
        evaluate=lambda model: accuracy(model, [(images[held_out], labels[held_out])]),
    )


def _members() -> dict[str, Shape]:
    # Of the linear shapes that share a name, the last one stays: the plain one.
    every = product(DEPTHS, reversed(_ACTIVATIONS), (True, False), (True, False))
    return {shape.name: shape for shape in (Shape(*one) for one in every)}


def variant(name: str) -> WorkloadFactory:
    """The member of the family that is called `digits-mlp-<name>`.

    Its runs: SGD with momentum, the first weights from torch's global generator, the held-out part
    and the order of the images from generators of their own, made of the seed.

    Raises UnknownNameError for a name that no member has.
    """
    members = _members()
    if name not in members:
        raise unknown_name("member of digits-mlp:", name, members)
    shape = members[name]

    def member(seed: int) -> Workload:
        return _workload(shape, seed)

    member.__name__ = member.__qualname__ = f"digits_mlp_{name.replace('-', '_')}"
    return member


def digits_mlp(seed: int) -> Workload:
    """One hidden layer of 64 ReLUs on mini batches of 256: `digits-mlp-1-relu`."""
    return _workload(Shape(), seed)
