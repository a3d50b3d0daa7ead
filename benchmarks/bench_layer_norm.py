"""`layer_norm` and `rms_norm` beside torch's: forward, backward by variant, and small calls.

python -m pytest benchmarks/bench_layer_norm.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _harness import Row, Spread, interleave, keep_memory, rates, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from nondet_probe.ops import layer_norm, rms_norm, variants

ROUNDS = 21
SHAPES = [(8192, 1024), (4096, 768), (512, 1024)]
CALLS = 300  # of a small one in a round
EPS = 1e-5
VARIANTS = [variant.name for variant in variants("layer_norm")]
functional = torch.nn.functional
keep_memory()


def beside(
    op: str, x: Tensor, threads: int, calls: dict[str, Callable[[], object]], touched: int
) -> dict[str, float]:
    """Median ratios to the first of the calls, which touch `touched` tensors like x each."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = interleave(calls, ROUNDS)
    finally:
        torch.set_num_threads(before)
    first, *others = calls
    dtype = str(x.dtype).removeprefix("torch.")

    def row(provider: str, metric: str, unit: str, of: Spread) -> Row:
        return Row(op, provider, dtype, x.numel(), threads, metric, unit, of)

    rows = [
        row(name, "rate", "GB/s", rates(seconds, touched * x.nbytes / 1e9))
        for name, seconds in times.items()
    ]
    found = {name: ratios(times[first], times[name]) for name in others}
    rows += [row(name, f"ratio to {first}", "x", of) for name, of in found.items()]
    write_rows("layer_norm", rows)
    return {name: of.median for name, of in found.items()}


def given(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, shape, shape[1:], shape[1:])
    x, dy, weight, bias = (torch.randn(size, generator=generator).to(dtype) for size in sizes)
    return x, dy, weight, bias


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(
    benchmark: BenchmarkFixture, shape: tuple[int, int], dtype: torch.dtype, threads: int
) -> None:
    x, _, weight, bias = given(shape, dtype)
    columns = shape[1:]
    calls: dict[str, Callable[[], object]] = {
        "torch": lambda: functional.layer_norm(x, columns, weight, bias),
        "fixed_order": lambda: layer_norm(x, columns, weight, bias),
    }
    beside("layer_norm", x, threads, calls, 2)
    norms: dict[str, Callable[[], object]] = {
        "torch": lambda: functional.rms_norm(x, columns, weight),
        "fixed_order": lambda: rms_norm(x, columns, weight),
    }
    beside("rms_norm", x, threads, norms, 2)
    benchmark.pedantic(layer_norm, (x, columns, weight, bias), {"threads": threads}, rounds=5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(
    benchmark: BenchmarkFixture, shape: tuple[int, int], dtype: torch.dtype, threads: int
) -> None:
    x, dy, weight, bias = given(shape, dtype)
    columns = shape[1]
    _, mean, scale = torch.ops.aten.native_layer_norm(x, shape[1:], weight, bias, EPS)
    ours = torch.ops.nondet_probe
    kept = ours.layer_norm_forward(x, columns, weight, bias, EPS, True, "exact", None)[1]

    def backward(variant: str) -> object:
        return ours.layer_norm_backward(dy, x, columns, weight, kept, True, True, variant, None)

    calls: dict[str, Callable[[], object]] = {
        "torch": lambda: torch.ops.aten.native_layer_norm_backward(
            dy, x, shape[1:], mean, scale, weight, bias, [True] * 3
        ),
        **{name: lambda name=name: backward(name) for name in VARIANTS},
    }
    ratio = beside("layer_norm backward", x, threads, calls, 3)
    benchmark.pedantic(backward, ("fixed_order",), rounds=5)
    if dtype is torch.float32:
        assert ratio["fixed_order"] >= 0.95


def test_small(benchmark: BenchmarkFixture) -> None:
    """Microseconds a call, Python and all."""
    x, _, weight, bias = given((1, 1000), torch.float32)
    once: dict[str, Callable[[], object]] = {
        "torch layer_norm": lambda: functional.layer_norm(x, (1000,), weight, bias),
        "layer_norm": lambda: layer_norm(x, (1000,), weight, bias),
        "torch rms_norm": lambda: functional.rms_norm(x, (1000,), weight),
        "rms_norm": lambda: rms_norm(x, (1000,), weight),
    }
    calls = {name: lambda call=call: [call() for _ in range(CALLS)] for name, call in once.items()}
    times = interleave(calls, ROUNDS)
    write_rows(
        "layer_norm",
        [
            Row("layer_norm", name, "float32", 1000, 1, "time", "us", Spread.of(micro))
            for name, micro in (
                (name, [value / CALLS * 1e6 for value in seconds])
                for name, seconds in times.items()
            )
        ],
    )
    benchmark(layer_norm, x, (1000,), weight, bias)
