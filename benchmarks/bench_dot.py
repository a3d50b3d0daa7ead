"""`dot` in its variants beside torch.dot, which reads the same memory.

python -m pytest benchmarks/bench_dot.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from _sidebyside import beside, normal, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import dot, variants

LARGE = 1 << 27  # bytes of each vector, four times the last-level cache
VARIANTS = [variant.name for variant in variants("dot")]


def every_variant(a: torch.Tensor, b: torch.Tensor) -> dict[str, Callable[[], object]]:
    return {
        "torch.dot": lambda: torch.dot(a, b),
        **{name: lambda name=name: dot(a, b, variant=name) for name in VARIANTS},
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_large(benchmark: BenchmarkFixture, dtype: torch.dtype, threads: int) -> None:
    n = LARGE // dtype.itemsize
    a, b = normal(n, dtype), normal(n, dtype, seed=1)
    beside("dot", a, threads, every_variant(a, b), "torch.dot", nbytes=2 * a.nbytes)
    benchmark.pedantic(dot, (a, b), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_on_wide_ranges(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    """Products whose exponents vary by hundreds of binades: one by one."""
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(np.exp(rng.normal(0, 10, LARGE // 64))).to(dtype) for _ in range(2))
    calls = {"torch.dot": lambda: torch.dot(a, b), "exact, lognormal 10": lambda: dot(a, b)}
    beside("dot", a, 1, calls, "torch.dot", nbytes=2 * a.nbytes)
    benchmark.pedantic(dot, (a, b), {"threads": 1}, rounds=3)


@pytest.mark.parametrize("n", [1, 1000])
def test_small(benchmark: BenchmarkFixture, n: int) -> None:
    """Microseconds a call, Python and all."""
    a, b = normal(n), normal(n, seed=1)
    small("dot", a, every_variant(a, b))
    benchmark(dot, a, b, threads=1)
