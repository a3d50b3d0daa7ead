"""`bincount` in its variants beside torch.bincount.

python -m pytest benchmarks/bench_bincount.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _groups import beside, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import bincount, variants

VARIANTS = [variant.name for variant in variants("bincount")]
LARGE = 1 << 22


def given(n: int, bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, bins, (n,), generator=generator), torch.randn(n, generator=generator)


def calls(index: torch.Tensor, weights: torch.Tensor | None) -> dict[str, Callable[[], object]]:
    return {
        "torch.bincount": lambda: torch.bincount(index, weights),
        **{name: lambda name=name: bincount(index, weights, variant=name) for name in VARIANTS},
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bins", [100, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large(benchmark: BenchmarkFixture, dtype: torch.dtype, bins: int, threads: int) -> None:
    index, weights = given(LARGE, bins)
    weights = weights.to(dtype)
    beside("bincount", f"{bins} bins", weights, threads, calls(index, weights))
    benchmark.pedantic(bincount, (index, weights), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_counts(benchmark: BenchmarkFixture, threads: int) -> None:
    index, _ = given(LARGE, 1000)
    both = {"torch.bincount": lambda: torch.bincount(index), "counts": lambda: bincount(index)}
    beside("bincount", "no weights", index, threads, both)
    benchmark.pedantic(bincount, (index,), {"threads": threads}, rounds=3)


def test_small(benchmark: BenchmarkFixture) -> None:
    index, weights = given(1000, 100)
    small("bincount", weights, calls(index, weights))
    benchmark(bincount, index, weights, threads=1)
