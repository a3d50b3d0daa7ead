"""`matmul` in its variants beside torch.matmul.

python -m pytest benchmarks/bench_matmul.py --benchmark-enable

What to expect, from operations: an fp32 product takes M N K fused multiply-adds, two floating-point
operations each. A core with two 256-bit units does 16 of them a cycle, 118 GFLOP/s at 3.7 GHz, and
that is the limit for both: ours has none of its own, its order costs no operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from _harness import Row, Spread, interleave, rates, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe import _C
from nondet_probe.ops import matmul

ROUNDS = 21
TORCH = "torch.matmul"
FAST = ("fixed_split", "splitk_ordered", "splitk_atomic")
CALLS = 300  # of a small one in a round


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def row(
    provider: str, a: torch.Tensor, terms: int, threads: int, metric: str, unit: str, of: Spread
) -> Row:
    """n of a row counts multiply-adds."""
    dtype = str(a.dtype).removeprefix("torch.")
    return Row("matmul", provider, dtype, terms, threads, metric, unit, of)


def beside(
    name: str,
    a: torch.Tensor,
    b: torch.Tensor,
    threads: int,
    variants: tuple[str, ...] = ("fixed_split",),
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Median ratios of the variants to torch.matmul; keeps rates and ratios."""
    calls: dict[str, Callable[[], object]] = {TORCH: lambda: torch.matmul(a, b)}
    calls |= {v: lambda v=v: matmul(a, b, variant=v) for v in variants}  # type: ignore[misc]
    with torch_threads(threads):
        times = interleave(calls, rounds)
    terms = a.numel() * (b.shape[-1] if b.dim() > 1 else 1)
    rows = [
        row(f"{call}, {name}", a, terms, threads, "rate", "GFLOP/s", rates(seconds, 2e-9 * terms))
        for call, seconds in times.items()
    ]
    found = {v: ratios(times[TORCH], times[v]) for v in variants}
    rows += [
        row(f"{v}, {name}", a, terms, threads, f"ratio to {TORCH}", "x", of)
        for v, of in found.items()
    ]
    write_rows("matmul", rows)
    return {v: of.median for v, of in found.items()}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [512, 1024, 2048])
def test_square(benchmark: BenchmarkFixture, n: int, threads: int) -> None:
    a, b = normal(n, n), normal(n, n)
    ratio = beside(f"{n} square", a, b, threads, rounds=ROUNDS if n < 2048 else 7)
    benchmark.pedantic(matmul, (a, b), {"threads": threads}, rounds=3)
    assert ratio["fixed_split"] >= 0.8


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 4, 16, 64])
def test_few_rows(benchmark: BenchmarkFixture, rows: int, threads: int) -> None:
    """As in a linear layer, whose weight lies transposed, and as in its gradient."""
    x, w = normal(rows, 2048), normal(2048, 2048)
    beside(f"{rows} x 2048 by 2048 x 2048", x, w, threads)
    beside(f"{rows} x 2048 by transposed 2048 x 2048", x, w.t(), threads)
    benchmark.pedantic(matmul, (x, w), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_vector(benchmark: BenchmarkFixture, threads: int) -> None:
    w, x = normal(2048, 2048), normal(2048)
    beside("2048 x 2048 by vector", w, x, threads)
    benchmark.pedantic(matmul, (w, x), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_long_k(benchmark: BenchmarkFixture, threads: int) -> None:
    a, b = normal(64, 1 << 16), normal(1 << 16, 64)
    beside("64 x 65536 by 65536 x 64", a, b, threads, FAST)
    benchmark.pedantic(matmul, (a, b), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_batch(benchmark: BenchmarkFixture, threads: int) -> None:
    """Scores of attention: 8 heads of 8 sequences of 128 tokens."""
    a, b = normal(64, 128, 64), normal(64, 128, 64).mT
    beside("64 times 128 x 64 by 64 x 128", a, b, threads)
    benchmark.pedantic(matmul, (a, b), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    a, b = normal(512, 512, dtype=dtype), normal(512, 512, dtype=dtype)
    beside("512 square", a, b, 1, rounds=7)
    benchmark.pedantic(matmul, (a, b), {"threads": 1}, rounds=3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_exact(benchmark: BenchmarkFixture, dtype: torch.dtype) -> None:
    """What the oracle costs."""
    a, b = normal(128, 128, dtype=dtype), normal(128, 128, dtype=dtype)
    beside("128 square", a, b, 1, ("fixed_split", "exact"), rounds=5)
    benchmark.pedantic(matmul, (a, b), {"variant": "exact", "threads": 1}, rounds=3)


@pytest.mark.parametrize("isa", _C.available_isas())
def test_every_instruction_set(
    benchmark: BenchmarkFixture, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NONDET_PROBE_ISA", isa)
    a, b = normal(256, 256), normal(256, 256)
    beside(f"256 square, {isa}", a, b, 1, rounds=7)
    benchmark.pedantic(matmul, (a, b), {"threads": 1}, rounds=3)


@pytest.mark.parametrize("n", [1, 10, 32, 64, 128])
def test_small(benchmark: BenchmarkFixture, n: int) -> None:
    """Microseconds a call, Python and all."""
    a, b = normal(n, n), normal(n, n)
    calls: dict[str, Callable[[], object]] = {
        TORCH: lambda: [torch.matmul(a, b) for _ in range(CALLS)],
        "fixed_split": lambda: [matmul(a, b) for _ in range(CALLS)],
    }
    with torch_threads(1):
        times = interleave(calls, ROUNDS)
    micro = CALLS / 1e6
    write_rows(
        "matmul",
        [
            row(
                f"{name}, {n} square",
                a,
                n**3,
                1,
                "time",
                "us",
                Spread.of([s / micro for s in seconds]),
            )
            for name, seconds in times.items()
        ],
    )
    benchmark(matmul, a, b, threads=1)
