"""`digest` beside torch.sum (which reads the same memory) and torch.hash_tensor, one thread.

python -m pytest benchmarks/bench_digest.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from _harness import Row, Spread, interleave, rates, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe import _C
from nondet_probe.bits import bit_equal, compare, digest, via_c

ROUNDS = 31
LARGE = 1 << 26  # fp32 elements: 256 MB, eight times the last-level cache
SMALL = (1, 1000, 10_000)
CALLS = 1000  # of a small one in a round


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def normal(count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def row(provider: str, n: int, metric: str, unit: str, spread: Spread) -> Row:
    return Row("digest", provider, "float32", n, 1, metric, unit, spread)


def test_large(benchmark: BenchmarkFixture) -> None:
    tensor = normal(LARGE)
    calls = {
        "digest": lambda: digest(tensor),
        "torch.sum": tensor.sum,
        "torch.hash_tensor": lambda: torch.hash_tensor(tensor),
    }
    times = interleave(calls, ROUNDS)
    of_sum = ratios(times["torch.sum"], times["digest"])
    of_hash = ratios(times["torch.hash_tensor"], times["digest"])
    rows = [
        row(name, LARGE, "rate", "GB/s", rates(seconds, tensor.nbytes / 1e9))
        for name, seconds in times.items()
    ]
    rows += [
        row("digest", LARGE, "ratio to torch.sum", "x", of_sum),
        row("digest", LARGE, "ratio to torch.hash_tensor", "x", of_hash),
    ]
    write_rows("digest", rows)
    benchmark.pedantic(calls["digest"], rounds=5)
    assert of_sum.median >= 0.9
    assert of_hash.median >= 2.0


def test_every_instruction_set(benchmark: BenchmarkFixture) -> None:
    tensor = normal(LARGE)

    def call(isa: str) -> str:
        return via_c.digest(via_c.dtype_code(tensor), tensor, 1, isa)

    isas = _C.available_isas()
    times = interleave({isa: lambda isa=isa: call(isa) for isa in isas}, ROUNDS // 3)
    write_rows(
        "digest",
        [
            row(f"digest {isa}", LARGE, "rate", "GB/s", rates(seconds, tensor.nbytes / 1e9))
            for isa, seconds in times.items()
        ],
    )
    benchmark.pedantic(call, (isas[-1],), rounds=5)


@pytest.mark.parametrize("n", SMALL)
def test_small(benchmark: BenchmarkFixture, n: int) -> None:
    """Microseconds a call, Python and all: these run hundreds of times in a training step."""
    tensor, other = normal(n), normal(n)
    calls = {
        "digest": lambda: [digest(tensor) for _ in range(CALLS)],
        "compare": lambda: [compare(tensor, other) for _ in range(CALLS)],
        "bit_equal": lambda: [bit_equal(tensor, other) for _ in range(CALLS)],
        "torch.equal": lambda: [torch.equal(tensor, other) for _ in range(CALLS)],
        "torch.hash_tensor": lambda: [torch.hash_tensor(tensor) for _ in range(CALLS)],
    }
    times = interleave(calls, ROUNDS)
    write_rows(
        "digest",
        [
            row(name, n, "time", "us", Spread.of([value / CALLS * 1e6 for value in seconds]))
            for name, seconds in times.items()
        ],
    )
    benchmark(digest, tensor)


def test_views(benchmark: BenchmarkFixture) -> None:
    """Strided tensors are gathered block by block; the alternative is a copy of the whole."""
    matrix = normal(1 << 24).reshape(4096, 4096)
    images = normal(1 << 24).reshape(64, 64, 64, 64).to(memory_format=torch.channels_last)
    views = {"transposed": matrix.t(), "columns": matrix[:, :4000], "channels_last": images}
    rows = []
    for name, view in views.items():
        calls = {
            f"digest {name}": lambda view=view: digest(view),
            f"contiguous copy {name}": lambda view=view: view.contiguous(),
        }
        rows += [
            row(provider, view.numel(), "rate", "GB/s", rates(seconds, view.nbytes / 1e9))
            for provider, seconds in interleave(calls, ROUNDS // 3).items()
        ]
    write_rows("digest", rows)
    benchmark.pedantic(digest, (views["transposed"],), rounds=3)
