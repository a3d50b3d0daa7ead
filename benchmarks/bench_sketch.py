"""`sketch` beside torch.sum, which reads the same memory, over 10 million parameters.

python -m pytest benchmarks/bench_sketch.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from _harness import Row, Spread, interleave, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe import _C
from nondet_probe.bits import sketch, sketch_distance, via_c
from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.bits.sketch import SKETCHED

ROUNDS = 31
N = 10_000_000
LIMIT = 1.5
"""Times that of torch.sum. Both read memory once, and main memory is the limit of both, so 1.0 to
1.2 is what csrc/sketch_isa.cpp predicts for float32."""


@pytest.fixture(autouse=True)
def threads_as_found() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def normal(count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype)


def row(
    provider: str, dtype: str, n: int, threads: int, metric: str, unit: str, spread: Spread
) -> Row:
    return Row("sketch", provider, dtype, n, threads, metric, unit, spread)


def milliseconds(seconds: list[float]) -> Spread:
    return Spread.of([value * 1e3 for value in seconds])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", SKETCHED, ids=dtype_name)
def test_ten_million(benchmark: BenchmarkFixture, dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    tensor = normal(N, dtype)
    given = {"w": tensor}
    calls = {"sketch": lambda: sketch(given), "torch.sum": tensor.sum}
    times = interleave(calls, ROUNDS)
    share = ratios(times["sketch"], times["torch.sum"])
    name = dtype_name(dtype)
    rows = [
        row(provider, name, N, threads, "time", "ms", milliseconds(seconds))
        for provider, seconds in times.items()
    ]
    rows.append(row("sketch", name, N, threads, "time over torch.sum", "x", share))
    write_rows("sketch", rows)
    benchmark.pedantic(calls["sketch"], rounds=5)
    if dtype is torch.float32:
        assert share.median <= LIMIT


def test_every_instruction_set(benchmark: BenchmarkFixture) -> None:
    tensor = normal(N)
    code = via_c.dtype_code(tensor)

    def call(isa: str) -> torch.Tensor:
        return via_c.sketch([(code, tensor, 1)], 1, isa)

    isas = _C.available_isas()
    times = interleave({isa: lambda isa=isa: call(isa) for isa in isas}, ROUNDS // 3)
    write_rows(
        "sketch",
        [
            row(f"sketch {isa}", "float32", N, 1, "time", "ms", milliseconds(seconds))
            for isa, seconds in times.items()
        ],
    )
    benchmark.pedantic(call, (isas[-1],), rounds=5)


def test_a_small_model(benchmark: BenchmarkFixture) -> None:
    """100 tensors of which half are biases: what a step of a small model pays, Python and all; and
    the distance of two sketches."""
    model = {f"layer {i}.weight": normal(64 * 64) for i in range(50)}
    model |= {f"layer {i}.bias": normal(64) for i in range(50)}
    one, other = sketch(model), sketch(dict.fromkeys(model, normal(64)))
    calls = {
        "sketch": lambda: sketch(model),
        "sketch_distance": lambda: sketch_distance(one, other),
    }
    times = interleave(calls, ROUNDS)
    elements = sum(tensor.numel() for tensor in model.values())
    write_rows(
        "sketch",
        [
            row(provider, "float32", elements, 1, "time", "ms", milliseconds(seconds))
            for provider, seconds in times.items()
        ],
    )
    benchmark.pedantic(calls["sketch"], rounds=5)
