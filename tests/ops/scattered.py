"""Scattered additions, for the tests of what adds by an index."""

import numpy as np
import torch
from torch import Tensor

from nondet_probe.ops import index_add

__all__ = ["add", "indices"]


def add(
    out: Tensor, index: Tensor, source: Tensor, variant: str, threads: int | None = 1
) -> Tensor:
    return index_add(out, 0, index, source, variant=variant, threads=threads)


def indices(n: int, destinations: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, destinations, n))
