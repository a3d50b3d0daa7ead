"""Small workloads for the tests of the probe; each takes about a millisecond a step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from nondet_probe.workload import Workload, take_step

Hook = Callable[[Workload, Any], None]


def net() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
    )


def endless() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches that draw from all three global streams, as augmentation does."""
    while True:
        images = torch.randn(32, 6) * random.uniform(0.9, 1.1) + float(np.random.rand())
        yield images, torch.randint(0, 3, (32,))


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def noisy(seed: int) -> Workload:
    """Dropout, batch norm and augmentation, all drawing from the global streams."""
    model = net()
    return Workload(
        model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), endless(), cross_entropy
    )


class Factory:
    """`noisy`, with a hook around each step, counting what it is asked to do.

    before(workload, batch) and after(workload, batch) run in every step of every copy; `calls`
    counts the steps of all copies together, `built` keeps the workloads in the order they were
    made.
    """

    def __init__(
        self,
        make: Callable[[int], Workload] = noisy,
        before: Hook | None = None,
        after: Hook | None = None,
    ) -> None:
        self.make, self.before, self.after = make, before, after
        self.calls = 0
        self.built: list[Workload] = []

    def __call__(self, seed: int) -> Workload:
        workload = self.make(seed)
        workload.step = self._step
        self.built.append(workload)
        return workload

    def _step(self, workload: Workload, batch: Any) -> torch.Tensor:
        self.calls += 1
        if self.before is not None:
            self.before(workload, batch)
        workload.step = None
        loss = take_step(workload, batch)
        workload.step = self._step
        if self.after is not None:
            self.after(workload, batch)
        return loss
