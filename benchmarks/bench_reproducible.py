"""What a training step costs under `reproducible("launch_invariant")`, beside the default.

python -m pytest benchmarks/bench_reproducible.py --benchmark-enable
MKL_CBWR=AVX512,STRICT python -m pytest ... for the launcher's figures
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from _harness import Row, Spread, interleave, keep_memory, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from nondet_probe import reproducible
from nondet_probe.env import thread_count
from nondet_probe.workload import Workload, take_step

THREADS = 2
ROUNDS = 20
LAUNCHED = "STRICT" in os.environ.get("MKL_CBWR", "")
BOUNDS = {"transformer": 1.2 if LAUNCHED else 1.5, "convolutions": 2.0}

keep_memory()


def transformer() -> Workload:
    def batches() -> Iterator[Tensor]:
        while True:
            yield torch.rand(16, 96, 256)

    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.1, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters())
    return Workload(model, optimizer, batches(), lambda m, x: m(x).square().mean())


def convolutions() -> Workload:
    def batches() -> Iterator[Tensor]:
        while True:
            yield torch.rand(32, 3, 32, 32)

    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.SiLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.GroupNorm(4, 32), nn.SiLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.SiLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return Workload(model, optimizer, batches(), lambda m, x: m(x).square().mean())


def steps(network: Callable[[], Workload]) -> Callable[[], object]:
    torch.manual_seed(0)
    workload = network()
    batches = iter(workload.batches)
    return lambda: take_step(workload, next(batches))


@pytest.mark.parametrize("network", [transformer, convolutions], ids=lambda f: f.__name__)
def test_step(network: Callable[[], Workload], benchmark: BenchmarkFixture) -> None:
    name = network.__name__
    provider = "reproducible, launcher" if LAUNCHED else "reproducible, context manager"
    with thread_count(THREADS):
        plain, rerouted = steps(network), steps(network)
        run = reproducible()
        # Entered for each round, but not within what is timed.
        times: dict[str, list[float]] = {"default": [], provider: []}
        for _ in range(ROUNDS):
            times["default"] += interleave({"step": plain}, 2, warmup=1)["step"]
            with run:
                times[provider] += interleave({"step": rerouted}, 2, warmup=1)["step"]
        assert run.report().holds, run.report()
        with run:
            benchmark.pedantic(rerouted, rounds=3)
    ratio = ratios(times[provider], times["default"])
    figures = [(who, "time", "s", Spread.of(seconds)) for who, seconds in times.items()]
    figures.append((provider, "ratio to default", "x", ratio))
    shape = ("float32", 1, THREADS)
    write_rows("reproducible", [Row(f"{name} step", f[0], *shape, *f[1:]) for f in figures])
    assert ratio.median <= BOUNDS[name]
