"""`norm` in its variants beside torch.linalg.vector_norm.

python -m pytest benchmarks/bench_norm.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _sidebyside import beside, normal, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import norm, variants

LARGE = 1 << 28  # bytes, eight times the last-level cache
VARIANTS = [variant.name for variant in variants("norm")]


def every_variant(x: torch.Tensor) -> dict[str, Callable[[], object]]:
    return {
        "torch.norm": lambda: torch.linalg.vector_norm(x),
        **{name: lambda name=name: norm(x, variant=name) for name in VARIANTS},
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_large(benchmark: BenchmarkFixture, dtype: torch.dtype, threads: int) -> None:
    x = normal(LARGE // dtype.itemsize, dtype)
    beside("norm", x, threads, every_variant(x), "torch.norm")
    benchmark.pedantic(norm, (x,), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("n", [1, 1000])
def test_small(benchmark: BenchmarkFixture, n: int) -> None:
    """Microseconds a call, Python and all."""
    x = normal(n)
    small("norm", x, every_variant(x))
    benchmark(norm, x, threads=1)
