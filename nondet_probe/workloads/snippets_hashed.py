"""`snippets-hashed`: which standard-library package does this snippet of source come from?

The model looks up hashed character n-grams in a table by advanced indexing. The backward pass of
that lookup, `index_put_(accumulate=True)` over 4,194,304 elements, adds from several threads at
once: on CPU with two threads or more its bits differ from run to run. One thread, or
`torch.use_deterministic_algorithms(True)`, gives the same bits every time.

The snippets are those of the running Python (another version has other sources, so other figures).
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
from nondet_probe.workloads._snippets import ROWS, load_snippets

__all__ = ["snippets_hashed"]

BATCH = 64
DIM = 64
HIDDEN = 128


class SnippetNet(nn.Module):
    """A weighted bag of n-grams and a small head.

    rows int64 [B, L] and weights float32 [B, L] to logits [B, packages].
    """

    def __init__(self, packages: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(ROWS, DIM))
        self.head = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, packages))

    def forward(self, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        # [B, L, DIM]; its backward adds into rows of the table that many lookups share.
        grams = self.table[rows]
        bag = torch.bmm(weights.unsqueeze(1), grams).squeeze(1)
        logits: torch.Tensor = self.head(bag)
        return logits


def snippets_hashed(seed: int) -> Workload:
    """A seeded training run: 64 snippets of 1,024 n-grams a batch, Adam.

    An n-gram weighs the more the rarer its row is in the training part (the logarithm of the
    inverse frequency); a snippet's weights have Euclidean length 1. So the lookups of one row bring
    different gradients, whose sum depends on the order of the additions.

    What draws from where: the first weights come from torch's global generator, which the caller
    seeds; the held-out fifth and the order of the snippets come from generators of their own, made
    of `seed`. Held-out snippets are of the same source files as the training ones.

    Raises `UsageError` where this Python has no sources.
    """
    data = load_snippets()
    split = torch.randperm(len(data.labels), generator=stream(seed, "split"))
    held_out, train = split[: len(split) // 5], split[len(split) // 5 :]
    count = torch.bincount(data.rows[train].flatten(), minlength=ROWS)
    rarity = (count.sum() / (1 + count)).log()

    def batch(items: torch.Tensor) -> Batch:
        rows = data.rows[items].long()
        return rows, nn.functional.normalize(rarity[rows]), data.labels[items]

    def batches() -> Iterator[Batch]:
        return map(batch, shuffled(train, BATCH, seed))

    model = SnippetNet(len(data.packages))
    return Workload(
        model,
        torch.optim.Adam(model.parameters(), lr=0.01),
        batches=Restartable(batches),
        loss=classification_loss,
        evaluate=lambda model: accuracy(model, map(batch, held_out.chunk(5))),
    )
