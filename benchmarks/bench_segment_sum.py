"""`segment_sum` in its variants beside torch.segment_reduce.

python -m pytest benchmarks/bench_segment_sum.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _groups import beside, small
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import segment_sum, variants

VARIANTS = [variant.name for variant in variants("segment_sum")]
# segments, rows of each, columns: 64 MiB of float32.
SHAPES = [(1, 1 << 24, 1), (1 << 14, 1 << 10, 1), (1 << 20, 1 << 4, 1), (1 << 12, 1 << 5, 1 << 7)]


def given(segments: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(segments * rows, columns, generator=torch.Generator().manual_seed(0))
    return (x[:, 0].contiguous() if columns == 1 else x), torch.full((segments,), rows)


def calls(x: torch.Tensor, lengths: torch.Tensor) -> dict[str, Callable[[], object]]:
    return {
        "torch.segment_reduce": lambda: torch.segment_reduce(x, "sum", lengths=lengths),
        **{
            name: lambda name=name: segment_sum(x, lengths=lengths, variant=name)
            for name in VARIANTS
        },
    }


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_large(benchmark: BenchmarkFixture, shape: tuple[int, int, int], threads: int) -> None:
    x, lengths = given(*shape)
    case = "{} segments of {} rows of {}".format(*shape)
    beside("segment_sum", case, x, threads, calls(x, lengths))
    benchmark.pedantic(segment_sum, (x,), {"lengths": lengths, "threads": threads}, rounds=3)


def test_small(benchmark: BenchmarkFixture) -> None:
    x, lengths = given(10, 100, 1)
    small("segment_sum", x, calls(x, lengths))
    benchmark(segment_sum, x, lengths=lengths, threads=1)
