"""`softmax`, `log_softmax` and `cross_entropy` beside torch's, forward and with backward.

python -m pytest benchmarks/bench_softmax.py --benchmark-enable
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _harness import Row, Spread, interleave, keep_memory, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.ops import cross_entropy, log_softmax, softmax, variants

ROUNDS = 11
SHAPES = [(8192, 1000), (512, 32_000)]
CALLS = 300  # of a small one in a round
VARIANTS = [variant.name for variant in variants("cross_entropy")]
functional = torch.nn.functional
keep_memory()


def beside(op: str, x: torch.Tensor, threads: int, calls: dict[str, Callable[[], object]]) -> None:
    """Keeps the times, and the ratios to the first of the calls."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        times = interleave(calls, ROUNDS)
    finally:
        torch.set_num_threads(before)
    first = next(iter(calls))
    dtype = str(x.dtype).removeprefix("torch.")
    rows = []
    for name, seconds in times.items():
        milli = Spread.of([value * 1e3 for value in seconds])
        rows.append(Row(op, name, dtype, x.numel(), threads, "time", "ms", milli))
        if name != first:
            ratio = ratios(times[first], seconds)
            rows.append(Row(op, name, dtype, x.numel(), threads, f"ratio to {first}", "x", ratio))
    write_rows("softmax", rows)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(benchmark: BenchmarkFixture, shape: tuple[int, int], threads: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    target = torch.arange(shape[0]) % shape[1]
    pairs = {
        "softmax": (lambda: functional.softmax(x, -1), lambda: softmax(x, -1)),
        "log_softmax": (lambda: functional.log_softmax(x, -1), lambda: log_softmax(x, -1)),
    }
    for op, (theirs, ours) in pairs.items():
        beside(op, x, threads, {"torch": theirs, "fixed_order": ours})
    calls: dict[str, Callable[[], object]] = {
        "torch": lambda: functional.cross_entropy(x, target),
        **{name: lambda name=name: cross_entropy(x, target, variant=name) for name in VARIANTS},
    }
    beside("cross_entropy", x, threads, calls)
    benchmark.pedantic(softmax, (x, -1), {"threads": threads}, rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_with_backward(benchmark: BenchmarkFixture, shape: tuple[int, int], threads: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.arange(shape[0]) % shape[1]
    dy = torch.ones(shape)

    def step(loss: Callable[[], torch.Tensor]) -> None:
        x.grad = None
        loss().backward()

    def pull(y: torch.Tensor) -> None:
        torch.autograd.grad(y, x, dy)

    losses: dict[str, Callable[[], object]] = {
        "torch": lambda: step(lambda: functional.cross_entropy(x, target)),
        "fixed_order": lambda: step(lambda: cross_entropy(x, target)),
    }
    beside("cross_entropy with backward", x, threads, losses)
    rows: dict[str, Callable[[], object]] = {
        "torch": lambda: pull(functional.softmax(x, -1)),
        "fixed_order": lambda: pull(softmax(x, -1)),
    }
    beside("softmax with backward", x, threads, rows)
    benchmark.pedantic(losses["fixed_order"], rounds=3)


def test_small(benchmark: BenchmarkFixture) -> None:
    """Milliseconds for CALLS calls, Python and all."""
    x = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([7])
    pairs = {
        "softmax": (lambda: functional.softmax(x, -1), lambda: softmax(x, -1)),
        "cross_entropy": (
            lambda: functional.cross_entropy(x, target),
            lambda: cross_entropy(x, target),
        ),
    }
    for op, (theirs, ours) in pairs.items():
        calls = {
            name: lambda call=call: [call() for _ in range(CALLS)]
            for name, call in {"torch": theirs, "fixed_order": ours}.items()
        }
        beside(f"{op}, {CALLS} calls", x, 1, calls)
    benchmark(softmax, x, -1)
