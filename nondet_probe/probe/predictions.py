"""Do two copies of a model predict the same: their outputs where the workload evaluates them.

The examples are the workload's own: whatever its `evaluate` calls the model with, seen by a forward
hook on the model, which changes no bit. What `evaluate` computes without calling the model as a
whole is not seen, and is said to be not covered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nondet_probe.bits import compare
from nondet_probe.records.measured import Predictions

__all__ = ["Outputs", "predictions", "watched"]


class Outputs:
    """What a model returned, call after call: copies, and why they are not all there, or None."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self.missing: str | None = None

    def hook(self, _module: torch.nn.Module, _arguments: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            self.tensors.append(output.detach().clone())
        else:
            kind = output.dtype if isinstance(output, torch.Tensor) else type(output).__name__
            self.missing = f"the model returns a {kind}, not a tensor of floating-point numbers"


@contextmanager
def watched(model: torch.nn.Module) -> Iterator[Outputs]:
    """Keep a copy of all that `model` returns inside the block."""
    outputs = Outputs()
    handle = model.register_forward_hook(outputs.hook)
    try:
        yield outputs
    finally:
        handle.remove()


def predictions(run: Outputs, twin: Outputs) -> tuple[Predictions | None, str | None]:
    """How the outputs of the twin differ, or None and the reason why there is nothing to say."""
    missing = run.missing or twin.missing
    if missing is not None:
        return None, missing
    if not run.tensors:
        return None, "evaluate did not call the model"
    shapes = [[(x.shape, x.dtype) for x in outputs.tensors] for outputs in (run, twin)]
    if shapes[0] != shapes[1]:
        return None, "evaluate called the two models with different examples"
    try:
        found = [compare(a, b) for a, b in zip(run.tensors, twin.tensors, strict=True)]
    except TypeError as error:
        return None, f"the outputs cannot be compared: {error}"
    apart = sum(pair.sum_squares_difference for pair in found)
    squares = sum(pair.sum_squares for pair in found)
    norm = math.sqrt(apart) / math.sqrt(squares) if squares else math.inf
    examples = sum(_rows(x) for x in run.tensors)
    choosing = examples and all(x.dim() >= 1 and x.shape[-1] >= 2 for x in run.tensors)
    changed = sum(
        _changed(a, b) for a, b in zip(run.tensors, twin.tensors, strict=True) if choosing
    )
    return Predictions(
        examples=examples,
        disagreement=changed / examples if choosing else None,
        distance=norm if apart else 0.0,
        max_ulp=max((pair.max_ulp or 0 for pair in found), default=None),
    ), None


def _rows(outputs: torch.Tensor) -> int:
    return math.prod(outputs.shape[:-1])


def _changed(a: torch.Tensor, b: torch.Tensor) -> int:
    """Rows whose largest output has another index; of several that are largest, the first."""
    return int((a.argmax(dim=-1) != b.argmax(dim=-1)).sum())
