"""`cumsum` in its variants beside torch.cumsum, over one long row and over many.

python -m pytest benchmarks/bench_cumsum.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _harness import keep_memory
from _sidebyside import beside, normal, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import cumsum, variants

VARIANTS = [variant.name for variant in variants("cumsum")]


def every_variant(x: torch.Tensor) -> dict[str, Callable[[], object]]:
    return {
        "torch.cumsum": lambda: torch.cumsum(x, -1),
        **{name: lambda name=name: cumsum(x, -1, variant=name) for name in VARIANTS},
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1 << 22), (2048, 2048)])
def test_large(
    benchmark: BenchmarkFixture, shape: tuple[int, int], dtype: torch.dtype, threads: int
) -> None:
    keep_memory()
    x = normal(shape, dtype)
    name = f"{shape[0]}x{shape[1]}"
    beside("cumsum", x, threads, every_variant(x), "torch.cumsum", shape=name)
    benchmark.pedantic(cumsum, (x, -1), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("n", [1, 1000])
def test_small(benchmark: BenchmarkFixture, n: int) -> None:
    """Microseconds a call, Python and all."""
    x = normal(n)
    small("cumsum", x, every_variant(x))
    benchmark(cumsum, x, 0, threads=1)
