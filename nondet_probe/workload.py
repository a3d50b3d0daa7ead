"""The contract between a user's training and every probe: a function of a seed gives a `Workload`.

    def my_workload(seed: int) -> Workload:
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Workload(model, optimizer, loader, loss=lambda m, b: F.mse_loss(m(b[0]), b[1]))

A probe calls the function again, with every random stream seeded alike, for each copy it needs, and
seeds them alike once more before the first batch; a `Workload` is never deep-copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Workload", "WorkloadFactory", "take_step"]


@dataclass
class Workload:
    """One training run that a probe can drive step by step.

    model: the module whose parameters and buffers are watched.
    optimizer: stepped after each backward pass; None means inference only: the model is called
        without gradients and nothing is updated.
    batches: any iterable of batches of any type; may be endless. A probe that needs more steps than
        it gives says so and fails at that step.
    loss: `loss(model, batch)` gives a 0-d floating tensor.
    step: replaces the plain step: `step(workload, batch)` does everything of one training step
        (several backward passes, clipping, a scheduler) and returns the loss.
    evaluate: `evaluate(model)` gives named figures, such as accuracy on held-out data.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer | None
    batches: Iterable[Any]
    loss: Callable[[torch.nn.Module, Any], torch.Tensor]
    step: Callable[[Workload, Any], torch.Tensor] | None = None
    evaluate: Callable[[torch.nn.Module], Mapping[str, float]] | None = None


WorkloadFactory = Callable[[int], Workload]


def take_step(workload: Workload, batch: Any) -> torch.Tensor:
    """One step of `workload` on `batch`; returns the detached loss.

    The plain step: zero the gradients, loss, backward, optimizer step. Every probe and the plain
    loop it is compared with go through here.
    """
    if workload.step is not None:
        stepped = workload.step(workload, batch)
        if not isinstance(stepped, torch.Tensor):
            raise TypeError(
                f"step(workload, batch) returned a {type(stepped).__name__}; it must return the "
                "loss as a tensor"
            )
        return stepped.detach()
    if workload.optimizer is None:
        with torch.no_grad():
            return workload.loss(workload.model, batch).detach()
    workload.optimizer.zero_grad(set_to_none=True)
    loss = workload.loss(workload.model, batch)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
    workload.optimizer.step()
    return loss.detach()
