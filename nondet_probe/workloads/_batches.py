"""What the built-in classifiers share. A batch is a tuple: the model's inputs, then the labels.

Labels are int64 [B]; a model takes the inputs and returns logits [B, classes].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, get_args

import numpy as np
import torch

__all__ = [
    "Batch",
    "Purpose",
    "Restartable",
    "accuracy",
    "classification_loss",
    "shuffled",
    "stream",
]

Batch = tuple[torch.Tensor, ...]
Purpose = Literal["split", "order", "augmentation"]


def stream(seed: int, purpose: Purpose) -> torch.Generator:
    """A generator for one purpose alone.

    Independent of the other purposes and of torch's global generator seeded with the same number
    (NumPy's `SeedSequence` mixes seed and purpose), so that one source of variation can change
    while the others stay.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=(get_args(Purpose).index(purpose),))
    return torch.Generator().manual_seed(int(mixed.generate_state(1)[0]))


def shuffled(items: torch.Tensor, size: int, seed: int) -> Iterator[torch.Tensor]:
    """`items` (int64 [n], n >= size) in pieces of `size`, epoch after epoch without end.

    Each epoch has an order of its own and leaves its incomplete last piece out.
    """
    order = stream(seed, "order")
    used = len(items) // size * size
    while True:
        chosen = torch.randperm(len(items), generator=order)[:used]
        yield from items[chosen].view(-1, size)


class Restartable:
    """An iterable that begins anew on every `iter()`, as a list does."""

    def __init__(self, start: Callable[[], Iterator[Batch]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Batch]:
        return self._start()


def classification_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy of the model's logits, 0-d."""
    *inputs, labels = batch
    return torch.nn.functional.cross_entropy(model(*inputs), labels)


def accuracy(model: torch.nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """Share of right answers over `batches`, in evaluation mode; the model's mode is put back."""
    was_training = model.training
    right = total = 0
    try:
        model.eval()
        with torch.no_grad():
            for *inputs, labels in batches:
                right += int((model(*inputs).argmax(dim=1) == labels).sum())
                total += len(labels)
    finally:
        model.train(was_training)
    return {"accuracy": right / total}
