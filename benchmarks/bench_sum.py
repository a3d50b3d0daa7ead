"""`sum` in its variants beside torch.sum, which reads the same memory, and beside fp64 and fsum.

python -m pytest benchmarks/bench_sum.py --benchmark-enable
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from _harness import Row, Spread, interleave, rates, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe import _C
from nondet_probe.ops import sum as sum_all
from nondet_probe.ops import variants

ROUNDS = 21
LARGE = 1 << 28  # bytes, eight times the last-level cache
LISTED = 1 << 24  # elements beside math.fsum: a list of them takes 32 bytes each
SMALL = (1, 1000, 100_000)
CALLS = 300  # of a small one in a round
CACHED = 1 << 19  # bytes, half of the second-level cache
COLUMNS = ("fixed_order", "exact", "two_pass", "atomic")  # variants that read columns as such
VARIANTS = [variant.name for variant in variants("sum")]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def normal(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype)


def large(dtype: torch.dtype) -> torch.Tensor:
    return normal(LARGE // dtype.itemsize, dtype)


def row(provider: str, x: torch.Tensor, threads: int, metric: str, unit: str, of: Spread) -> Row:
    dtype = str(x.dtype).removeprefix("torch.")
    return Row("sum", provider, dtype, x.numel(), threads, metric, unit, of)


def beside(
    x: torch.Tensor,
    threads: int,
    calls: dict[str, Callable[[], object]],
    slower: str = "torch.sum",
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Median ratios of all calls to `slower`; keeps rates and ratios."""
    with torch_threads(threads):
        times = interleave(calls, rounds)
    gigabytes = x.nbytes / 1e9
    rows = [
        row(name, x, threads, "rate", "GB/s", rates(seconds, gigabytes))
        for name, seconds in times.items()
    ]
    found = {name: ratios(times[slower], times[name]) for name in calls if name != slower}
    rows += [row(name, x, threads, f"ratio to {slower}", "x", of) for name, of in found.items()]
    write_rows("sum", rows)
    return {name: of.median for name, of in found.items()}


def every_variant(x: torch.Tensor) -> dict[str, Callable[[], object]]:
    return {
        "torch.sum": x.sum,
        **{name: lambda name=name: sum_all(x, variant=name) for name in VARIANTS},
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_large(benchmark: BenchmarkFixture, threads: int) -> None:
    x = large(torch.float32)
    ratio = beside(x, threads, every_variant(x))
    benchmark.pedantic(sum_all, (x,), {"threads": threads}, rounds=5)
    assert ratio["exact"] >= 0.9
    assert ratio["fixed_order"] >= 0.95


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    x = large(dtype)
    beside(x, 1, every_variant(x), rounds=ROUNDS // 3)
    benchmark.pedantic(sum_all, (x,), {"threads": 1}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_beside_fp64(benchmark: BenchmarkFixture, threads: int) -> None:
    x = large(torch.float32)
    slower = "x.sum(dtype=torch.float64)"
    calls = {slower: lambda: x.sum(dtype=torch.float64), "exact": lambda: sum_all(x)}
    ratio = beside(x, threads, calls, slower, rounds=7)
    benchmark.pedantic(sum_all, (x,), {"threads": threads}, rounds=3)
    assert ratio["exact"] >= 5.0


def test_beside_fsum(benchmark: BenchmarkFixture) -> None:
    x = normal(LISTED)
    slower = "math.fsum(x.tolist())"
    calls = {slower: lambda: math.fsum(x.tolist()), "exact": lambda: sum_all(x)}
    ratio = beside(x, 1, calls, slower, rounds=5)
    benchmark.pedantic(sum_all, (x,), {"threads": 1}, rounds=3)
    assert ratio["exact"] >= 50.0


@pytest.mark.parametrize("isa", _C.available_isas())
def test_every_instruction_set(
    benchmark: BenchmarkFixture, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    x = large(torch.float32)
    calls = {
        "torch.sum": x.sum,
        **{f"{name} {isa}": lambda name=name: sum_all(x, variant=name) for name in VARIANTS},
    }
    beside(x, 1, calls, rounds=ROUNDS // 3)
    benchmark.pedantic(sum_all, (x,), {"threads": 1}, rounds=3)


HARD = {
    "uniform": lambda rng, n: rng.random(n),
    "lognormal 3": lambda rng, n: np.exp(rng.normal(0, 3, n)),
    "lognormal 6": lambda rng, n: np.exp(rng.normal(0, 6, n)),
    "lognormal 10": lambda rng, n: np.exp(rng.normal(0, 10, n)),
    "one outlier in 4096": lambda rng, n: np.where(
        np.arange(n) % 4096 == 0, 2.0**60, rng.standard_normal(n)
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HARD)
def test_exact_on_wide_ranges(benchmark: BenchmarkFixture, name: str, dtype: torch.dtype) -> None:
    """The time depends on the data: how much, on data that the quickest way does not fit."""
    x = torch.from_numpy(HARD[name](np.random.default_rng(0), LARGE // 16)).to(dtype)
    calls = {"torch.sum": x.sum, f"exact, {name}": lambda: sum_all(x)}
    beside(x, 1, calls, rounds=ROUNDS // 3)
    benchmark.pedantic(sum_all, (x,), {"threads": 1}, rounds=3)


def test_exact_where_every_block_is_wide(benchmark: BenchmarkFixture) -> None:
    """600 binades in every block, which is nothing that a split reaches; fsum has its list made."""
    rng = np.random.default_rng(0)
    n = LISTED // 16
    x = torch.from_numpy(rng.standard_normal(n) * 2.0 ** rng.integers(-300, 300, n))
    values = x.tolist()
    slower = "math.fsum, wide range"
    calls = {slower: lambda: math.fsum(values), "exact, wide range": lambda: sum_all(x)}
    ratio = beside(x, 1, calls, slower, rounds=5)
    benchmark.pedantic(sum_all, (x,), {"threads": 1}, rounds=3)
    assert ratio["exact, wide range"] >= 5.0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns(benchmark: BenchmarkFixture, dtype: torch.dtype, threads: int) -> None:
    """Sums over the leading dimension, of 4096 columns."""
    x = large(dtype).reshape(-1, 4096)
    slower = "torch.sum(0)"
    calls: dict[str, Callable[[], object]] = {
        slower: lambda: x.sum(0),
        **{f"{name}, columns": lambda name=name: sum_all(x, 0, variant=name) for name in COLUMNS},
    }
    ratio = beside(x, threads, calls, slower, rounds=ROUNDS // 2)
    benchmark.pedantic(sum_all, (x, 0), {"threads": threads}, rounds=3)
    if dtype is torch.float32:
        assert ratio["fixed_order, columns"] >= 1.5
        assert ratio["exact, columns"] >= 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_the_second_cache(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    x = normal(CACHED // dtype.itemsize, dtype)
    calls = {
        name: lambda call=call: [call() for _ in range(CALLS)]
        for name, call in every_variant(x).items()
    }
    with torch_threads(1):
        times = interleave(calls, ROUNDS)
    found = {name: ratios(times["torch.sum"], times[name]) for name in VARIANTS}
    write_rows(
        "sum", [row(name, x, 1, "ratio to torch.sum", "x", of) for name, of in found.items()]
    )
    benchmark(sum_all, x, threads=1)
    assert found["exact"].median >= 0.2


@pytest.mark.parametrize("n", SMALL)
def test_small(benchmark: BenchmarkFixture, n: int) -> None:
    """Microseconds a call, Python and all."""
    x = normal(n)
    calls = {
        name: lambda call=call: [call() for _ in range(CALLS)]
        for name, call in every_variant(x).items()
    }
    with torch_threads(1):
        times = interleave(calls, ROUNDS)
    micro = CALLS / 1e6
    write_rows(
        "sum",
        [
            row(name, x, 1, "time", "us", Spread.of([value / micro for value in seconds]))
            for name, seconds in times.items()
        ],
    )
    benchmark(sum_all, x, threads=1)
    if n == 1000:
        least = {name: min(seconds) / micro for name, seconds in times.items()}
        for name in VARIANTS:
            assert least[name] - least["torch.sum"] <= (9 if name == "exact" else 6), name


def test_small_with_gradient(benchmark: BenchmarkFixture) -> None:
    """Microseconds of forward and backward together."""
    x = normal(1000).requires_grad_()

    def both(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        x.grad = None
        function(x).backward()

    calls: dict[str, Callable[[], object]] = {
        "torch.sum, backward": lambda: [both(torch.sum) for _ in range(CALLS)],
        "exact, backward": lambda: [both(sum_all) for _ in range(CALLS)],
    }
    with torch_threads(1):
        times = interleave(calls, ROUNDS)
    micro = CALLS / 1e6
    rows = [
        row(name, x, 1, "time", "us", Spread.of([value / micro for value in seconds]))
        for name, seconds in times.items()
    ]
    write_rows("sum", rows)
    benchmark(both, sum_all)
    ours, theirs = rows[1].spread.median, rows[0].spread.median
    assert ours - theirs <= 35
