"""`var` in its variants beside torch.var, over rows, over columns and over everything.

python -m pytest benchmarks/bench_var.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _sidebyside import beside, normal, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import var, variants

VARIANTS = [variant.name for variant in variants("var")]


def every_variant(x: torch.Tensor, dim: int | None) -> dict[str, Callable[[], object]]:
    return {
        "torch.var": lambda: torch.var(x, dim),
        **{name: lambda name=name: var(x, dim, variant=name) for name in VARIANTS},
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(4096, 4096), (65536, 256)])
def test_rows(
    benchmark: BenchmarkFixture, shape: tuple[int, int], dtype: torch.dtype, threads: int
) -> None:
    x = normal(shape, dtype)
    name = f"{shape[0]}x{shape[1]}"
    ratio = beside("var", x, threads, every_variant(x, -1), "torch.var", shape=name)
    benchmark.pedantic(var, (x, -1), {"threads": threads}, rounds=3)
    if dtype is torch.float32:
        assert ratio["exact"] >= 2.0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dim", [None, 0])
def test_all_and_columns(benchmark: BenchmarkFixture, dim: int | None, threads: int) -> None:
    x = normal((4096, 4096))
    name = "columns" if dim == 0 else "all"
    beside("var", x, threads, every_variant(x, dim), "torch.var", shape=name)
    benchmark.pedantic(var, (x, dim), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("n", [2, 1000])
def test_small(benchmark: BenchmarkFixture, n: int) -> None:
    """Microseconds a call, Python and all."""
    x = normal(n)
    small("var", x, every_variant(x, None))
    benchmark(var, x, threads=1)
