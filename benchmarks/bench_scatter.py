"""index_put, scatter_add and index_add in their variants beside torch's.

python -m pytest benchmarks/bench_scatter.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from _harness import Row, Spread, interleave, rates, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from nondet_probe.ops import index, index_add, index_put, scatter_add, variants

ROUNDS = 11
N = 1 << 22  # elements
ROWS, COLUMNS = 1 << 16, 64
CALLS = 300  # of a small one in a round
VARIANTS = [variant.name for variant in variants("scatter_add")]

Calls = dict[str, Callable[[], object]]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def indices(n: int, destinations: int) -> Tensor:
    return torch.randint(destinations, (n,), generator=torch.Generator().manual_seed(1))


def compared(
    op: str, torch_call: str, calls: Calls, x: Tensor, threads: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """Median ratios of all calls to torch's; keeps rates (of elements of x) and ratios."""
    with torch_threads(threads):
        times = interleave(calls, rounds)
    dtype = str(x.dtype).removeprefix("torch.")
    elements = x.numel() / 1e9
    rows = [
        Row(op, name, dtype, x.numel(), threads, "rate", "G/s", rates(seconds, elements))
        for name, seconds in times.items()
    ]
    found = {name: ratios(times[torch_call], times[name]) for name in calls if name != torch_call}
    rows += [
        Row(op, name, dtype, x.numel(), threads, f"ratio to {torch_call}", "x", of)
        for name, of in found.items()
    ]
    write_rows("scatter", rows)
    return {name: of.median for name, of in found.items()}


def of_variants(label: str, call: Callable[[str], object]) -> Calls:
    return {f"{name}{label}": lambda name=name: call(name) for name in VARIANTS}


@pytest.mark.parametrize("threads", [1, 2])
def test_index_put(benchmark: BenchmarkFixture, threads: int) -> None:
    """4 Mi values into 1,000 places: the rows of issue 3."""
    x, i, values = torch.zeros(1000), indices(N, 1000), normal(N)
    calls: Calls = {
        "torch.index_put": lambda: x.index_put((i,), values, accumulate=True),
        **of_variants("", lambda name: index_put(x, (i,), values, variant=name)),
    }
    ratio = compared("index_put", "torch.index_put", calls, values, threads)
    benchmark.pedantic(index_put, (x, (i,), values), {"threads": threads}, rounds=3)
    assert ratio["ordered"] >= (2.0 if threads == 1 else 15.0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("destinations", [1000, 1_000_000])
def test_scatter_add(benchmark: BenchmarkFixture, destinations: int, threads: int) -> None:
    x, i, src = torch.zeros(destinations), indices(N, destinations), normal(N)
    into = f", into {destinations}"
    base = f"torch.scatter_add{into}"
    calls: Calls = {
        base: lambda: x.scatter_add(0, i, src),
        **of_variants(into, lambda name: scatter_add(x, 0, i, src, variant=name)),
    }
    ratio = compared("scatter_add", base, calls, src, threads)
    benchmark.pedantic(scatter_add, (x, 0, i, src), {"threads": threads}, rounds=3)
    assert ratio[f"exact{into}"] >= 0.6
    if threads == 2:
        assert ratio[f"ordered{into}"] >= 1.5


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["expanded index", "full index"])
def test_rows(benchmark: BenchmarkFixture, kind: str, threads: int) -> None:
    x, src = torch.zeros(1000, COLUMNS), normal(ROWS, COLUMNS)
    if kind == "full index":
        i = indices(ROWS * COLUMNS, 1000).reshape(ROWS, COLUMNS)
    else:
        i = indices(ROWS, 1000).unsqueeze(1).expand(ROWS, COLUMNS)
    into = f", rows, {kind}"
    base = f"torch.scatter_add{into}"
    calls: Calls = {
        base: lambda: x.scatter_add(0, i, src),
        **of_variants(into, lambda name: scatter_add(x, 0, i, src, variant=name)),
    }
    ratio = compared("scatter_add", base, calls, src, threads)
    benchmark.pedantic(scatter_add, (x, 0, i, src), {"threads": threads}, rounds=3)
    if threads == 2:
        assert ratio[f"ordered{into}"] >= 1.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    x, i, src = torch.zeros(1000, dtype=dtype), indices(N, 1000), normal(N, dtype=dtype)
    calls: Calls = {
        "torch.index_add": lambda: x.index_add(0, i, src),
        **of_variants("", lambda name: index_add(x, 0, i, src, variant=name)),
    }
    compared("index_add", "torch.index_add", calls, src, 1, ROUNDS // 2)
    benchmark.pedantic(index_add, (x, 0, i, src), {"threads": 1}, rounds=3)


HARD: dict[str, Callable[[Tensor], Tensor]] = {
    "lognormal 3": lambda x: (x * 3).exp(),
    "lognormal 10": lambda x: (x * 10).exp(),
    "exponents all over": lambda x: x * torch.exp2(indices(x.numel(), 200) - 100.0),
}


@pytest.mark.parametrize("name", HARD)
def test_exact_on_wide_ranges(benchmark: BenchmarkFixture, name: str) -> None:
    """The time depends on the data, the bits never."""
    x, i, src = torch.zeros(1000), indices(N, 1000), HARD[name](normal(N))
    label = f"exact, {name}"
    calls: Calls = {
        "torch.scatter_add": lambda: x.scatter_add(0, i, src),
        label: lambda: scatter_add(x, 0, i, src, variant="exact"),
    }
    compared("scatter_add", "torch.scatter_add", calls, src, 1, ROUNDS // 2)
    benchmark.pedantic(scatter_add, (x, 0, i, src), {"variant": "exact", "threads": 1}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_backward_of_index(benchmark: BenchmarkFixture, threads: int) -> None:
    i, gradient = indices(N, 1000), normal(N)
    x = torch.zeros(1000, requires_grad=True)

    def backward_of(picked: Tensor) -> None:
        torch.autograd.grad(picked, x, gradient)

    calls: Calls = {
        "torch x[i], backward": lambda: backward_of(x[i]),
        **of_variants(
            ", forward and backward", lambda name: backward_of(index(x, (i,), variant=name))
        ),
    }
    compared("index", "torch x[i], backward", calls, gradient, threads)
    benchmark.pedantic(index, (x, (i,)), {"threads": threads}, rounds=3)


def test_small(benchmark: BenchmarkFixture) -> None:
    """Microseconds a call at n = 1,000, Python and all."""
    x, i, src = torch.zeros(100), indices(1000, 100), normal(1000)
    calls: Calls = {
        "torch.index_add": lambda: x.index_add(0, i, src),
        "torch.scatter_add": lambda: x.scatter_add(0, i, src),
        "torch.index_put": lambda: x.index_put((i,), src, accumulate=True),
        **of_variants(", index_add", lambda name: index_add(x, 0, i, src, variant=name)),
        **of_variants(", scatter_add", lambda name: scatter_add(x, 0, i, src, variant=name)),
        **of_variants(", index_put", lambda name: index_put(x, (i,), src, variant=name)),
    }
    repeated = {
        name: lambda call=call: [call() for _ in range(CALLS)] for name, call in calls.items()
    }
    with torch_threads(1):
        times = interleave(repeated, ROUNDS)
    micro = CALLS / 1e6
    write_rows(
        "scatter",
        [
            Row("small", name, "float32", 1000, 1, "time", "us", Spread.of([s / micro for s in of]))
            for name, of in times.items()
        ],
    )
    benchmark(index_add, x, 0, i, src, threads=1)
