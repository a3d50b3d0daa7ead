"""Data sets and `worker_init_fn`s for tests of loaders, in a module that spawned workers import."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """Twelve samples; each draws from all three generators of the process that fetches it."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        drawn = torch.rand(3) + random.random() + float(np.random.rand())
        return drawn + index, index


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = torch.utils.data.get_worker_info()
        first = 0 if worker is None else worker.id
        count = 7 if worker is None else 4 + 3 * worker.id  # unequal, so that one ends before
        for number in range(count):
            yield torch.tensor([first, number])


def reseed_numpy(worker: int) -> None:
    np.random.seed(100 + worker)


def fails(worker: int) -> None:
    raise ValueError(f"worker {worker} has no data")
