"""The gradient of `embedding` in its variants beside that of torch.nn.functional.embedding.

python -m pytest benchmarks/bench_embedding.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from _groups import beside, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import embedding, variants

VARIANTS = [variant.name for variant in variants("embedding")]
ROWS = 32_000  # a vocabulary
TOKENS = {
    "uniform": lambda rng, n: rng.integers(0, ROWS, n),
    "Zipf": lambda rng, n: np.minimum(rng.zipf(1.2, n) - 1, ROWS - 1),
    "all equal": lambda rng, n: np.full(n, 7),
}


def calls(
    input: torch.Tensor, columns: int
) -> tuple[torch.Tensor, dict[str, Callable[[], object]]]:
    """The gradient that arrives, and the backward passes that add it up."""
    weight = torch.zeros(ROWS, columns, requires_grad=True)
    of_result = torch.randn(*input.shape, columns, generator=torch.Generator().manual_seed(0))
    results = {
        "torch embedding": torch.nn.functional.embedding(input, weight),
        **{name: embedding(input, weight, variant=name) for name in VARIANTS},
    }
    return of_result, {
        name: lambda result=result: torch.autograd.grad(
            result, weight, of_result, retain_graph=True
        )
        for name, result in results.items()
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", TOKENS)
def test_large(benchmark: BenchmarkFixture, tokens: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    input = torch.from_numpy(TOKENS[tokens](rng, 1 << 16).astype(np.int64))
    of_result, backward = calls(input, 256)
    beside("embedding", f"{tokens} tokens", of_result, threads, backward)
    benchmark.pedantic(backward["exact"], rounds=3)


def test_small(benchmark: BenchmarkFixture) -> None:
    input, weight = torch.arange(100) % 10, torch.zeros(10, 10)
    forward = {
        "torch embedding": lambda: torch.nn.functional.embedding(input, weight),
        "forward": lambda: embedding(input, weight),
    }
    small("embedding", weight, forward)
    benchmark(embedding, input, weight)
