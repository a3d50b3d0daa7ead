"""`histogram` in its variants beside torch.histogram.

python -m pytest benchmarks/bench_histogram.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _groups import beside, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import histogram, variants

VARIANTS = [variant.name for variant in variants("histogram")]
LARGE = 1 << 22


def given(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, generator=generator), torch.randn(n, generator=generator)


def calls(
    x: torch.Tensor, bins: int | torch.Tensor, weight: torch.Tensor | None
) -> dict[str, Callable[[], object]]:
    return {
        "torch.histogram": lambda: torch.histogram(x, bins, weight=weight),
        **{
            name: lambda name=name: histogram(x, bins, weight=weight, variant=name)
            for name in VARIANTS
        },
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bins", [100, 10_000])
def test_weights(benchmark: BenchmarkFixture, bins: int, threads: int) -> None:
    x, weight = given(LARGE)
    beside("histogram", f"{bins} bins", x, threads, calls(x, bins, weight))
    benchmark.pedantic(histogram, (x, bins), {"weight": weight, "threads": threads}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("edges", ["bins of equal width", "edges given"])
def test_counts(benchmark: BenchmarkFixture, edges: str, threads: int) -> None:
    x, _ = given(LARGE)
    bins = 100 if edges != "edges given" else torch.linspace(-4, 4, 101)
    both = {
        "torch.histogram": lambda: torch.histogram(x, bins),
        "counts": lambda: histogram(x, bins),
    }
    beside("histogram", f"no weights, {edges}", x, threads, both)
    benchmark.pedantic(histogram, (x, bins), {"threads": threads}, rounds=3)


def test_small(benchmark: BenchmarkFixture) -> None:
    x, weight = given(1000)
    small("histogram", x, calls(x, 100, weight))
    benchmark(histogram, x, 100, weight=weight, threads=1)
