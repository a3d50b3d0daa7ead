"""Inputs on which CUB's reproducible sum was predicted to go wrong, and what it says on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from _cub import Cub
from torch import Tensor

from nondet_probe import ops
from nondet_probe.probe.meters import ON_GPU
from nondet_probe.records.figures import Row, Spread

__all__ = ["INPUTS", "cub_rows"]

PERMUTATIONS = 20


def _tiny() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5000, generator=generator) * 1e-36


# name: what is added up, on cpu. Wanted of each: the exact sum, whatever the order.
INPUTS = {
    "zeros": lambda: torch.zeros(100_000),
    "zeros, float64": lambda: torch.zeros(100_000, dtype=torch.float64),
    "normal numbers times 1e-36": _tiny,
    "a thousand times 1e-38": lambda: torch.full((1000,), 1e-38),
    "twice 1e300, float64": lambda: torch.tensor([1e300, 1e300], dtype=torch.float64),
    "four times 1e-200 and 5e-324, float64": lambda: torch.tensor(
        [1e-200] * 4 + [5e-324], dtype=torch.float64
    ),
    "infinity and 1": lambda: torch.tensor([math.inf, 1.0]),
}


def cub_rows(found: Cub | str, device: torch.device) -> list[Row]:
    """For each input the sum by CUB's gpu_to_gpu and by `exact`, and how many different ones the
    orders of the addends give."""
    return [row for name in INPUTS for row in _rows(name, found, device)]


def _rows(name: str, found: Cub | str, device: torch.device) -> Iterator[Row]:
    x = INPUTS[name]().to(device)
    place = (str(x.dtype).removeprefix("torch."), x.numel(), ON_GPU)
    for provider in ("CUB gpu_to_gpu", "exact"):
        if provider != "exact" and isinstance(found, str):
            yield Row("sum", provider, *place, "answer", "1", None, "", f"{name}: {found}")
            continue
        sums = []
        for turn in range(PERMUTATIONS):
            order = torch.randperm(x.numel(), generator=torch.Generator().manual_seed(turn))
            given = x[order.to(device)] if turn else x
            sums.append(
                ops.sum(given, variant="exact") if isinstance(found, str) or provider == "exact"
                else found.sum(given, "gpu_to_gpu")
            )  # fmt: skip
        values = [one.double().item() for one in sums]
        different = len({value.hex() for value in values})
        yield Row("sum", provider, *place, "answer", "1", Spread.single(values[0], 1), "", name)
        count = Spread.single(different, PERMUTATIONS)
        yield Row("sum", provider, *place, "answers", "count", count, "", name)
