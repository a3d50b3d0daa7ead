"""`digits-cnn`: a small convolutional network on scikit-learn's 1,797 handwritten digits.

Every op of it is run-to-run deterministic on CPU at a fixed thread count (another count gives other
bits). One changed bit of a weight still sends the run elsewhere: the workload to try `twin` on.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from nondet_probe.workload import Workload
from nondet_probe.workloads._batches import (
    Batch,
    Restartable,
    accuracy,
    classification_loss,
    shuffled,
    stream,
)
from nondet_probe.workloads._digits import digits, split

__all__ = ["digits_cnn"]

BATCH = 256
SHIFT = 1  # pixels, at most, in each direction


class DigitsNet(nn.Module):
    """Two convolutions and two linear layers: images [B, 1, 8, 8] float32 to logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.hidden = nn.Linear(64 * 4 * 4, 64)
        self.out = nn.Linear(64, 10)
        self.dropout = nn.Dropout(0.3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(images))
        x = torch.relu(self.norm(self.conv2(x)))
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        x = torch.relu(self.hidden(self.dropout(x)))
        logits: torch.Tensor = self.out(self.dropout(x))
        return logits


def _shifted(images: torch.Tensor, augmentation: torch.Generator) -> torch.Tensor:
    """Every image moved by -SHIFT..SHIFT pixels down and across, background moving in."""
    down, across = torch.randint(2 * SHIFT + 1, (2, len(images)), generator=augmentation)
    windows = nn.functional.pad(images[:, 0], (SHIFT,) * 4).unfold(1, 8, 1).unfold(2, 8, 1)
    return windows[torch.arange(len(images)), down, across].unsqueeze(1)


def digits_cnn(seed: int) -> Workload:
    """A seeded training run: BatchNorm, dropout, SGD with momentum, 256 shifted images a batch.

    What draws from where: the first weights (now) and the dropout masks (every step) come from
    torch's global generator, which the caller seeds; the held-out part, the order of the images and
    their shifts come from three generators of their own, made of `seed`.

    Raises `UsageError` where scikit-learn is missing.
    """
    images, labels = digits()
    train, held_out = split(seed)

    def batches() -> Iterator[Batch]:
        augmentation = stream(seed, "augmentation")
        for items in shuffled(train, BATCH, seed):
            yield _shifted(images[items], augmentation), labels[items]

    model = DigitsNet()
    return Workload(
        model,
        torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        batches=Restartable(batches),
        loss=classification_loss,
        evaluate=lambda model: accuracy(model, [(images[held_out], labels[held_out])]),
    )
