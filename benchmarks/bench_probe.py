"""What the probes cost: `twin` with its control, and `rerun` at K=2, beside the plain loop.

python -m pytest benchmarks/bench_probe.py --benchmark-enable

Measured step by step, in turn with the plain loop's steps; and for `twin` also as a whole call,
which builds three copies, fits the growth and evaluates two models where the plain loop builds one.
Three plain runs take 3 times what one does, so a twin cannot take less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count, repeat

import pytest
import torch
from _harness import Row, Spread, interleave, keep_memory, ratios, write_rows
from pytest_benchmark.fixture import BenchmarkFixture

from nondet_probe.env import thread_count
from nondet_probe.probe.drive import Batches, build, finite_loss, guarded_step, plain_run
from nondet_probe.probe.follower import Flip, Follower
from nondet_probe.probe.lockstep import Lockstep
from nondet_probe.probe.rerun import Rerun
from nondet_probe.probe.twin import twin
from nondet_probe.workload import Workload, WorkloadFactory
from nondet_probe.workloads.digits_cnn import BATCH, digits_cnn

ROUNDS = 60  # steps of each
STEPS = 100  # of a whole call, as many as the command takes
WHOLE_ROUNDS = 5

keep_memory()

TWIN_BOUND = 3.1
SEVERAL = 3
SEVERAL_BOUND = 1.02
MEASURED_BOUND = 1.1
RERUN_BOUND = 2.6
ENCODER_BOUND = 2.4


def encoder(seed: int) -> Workload:
    """Four layers of a transformer of width 256, 8 sequences of 64, AdamW in lists."""
    layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.1, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
    return Workload(
        model, optimizer, repeat(torch.randn(8, 64, 256)), lambda m, x: m(x).square().mean()
    )


def plain_steps(factory: WorkloadFactory = digits_cnn) -> Callable[[], object]:
    """A function that takes the next step of a run of its own."""
    workload = build(factory, 0)
    batches, steps = Batches(workload, ROUNDS), count()

    def step() -> None:
        number = next(steps)
        finite_loss(guarded_step(workload, batches.draw(number), number), number)

    return step


class Unmeasured(Lockstep):
    """The same steps, with nothing looked at after them."""

    def _compare(self, *_: object) -> None:
        pass


def lockstep_steps(
    kind: type[Lockstep], factory: WorkloadFactory, twins: int = 1
) -> Callable[[], object]:
    """The next step of a run with its twins and their control, in either way."""
    run = build(factory, 0)
    name = next(name for name, value in run.model.named_parameters() if value.dim() >= 2)
    followers = [
        Follower(run, build(factory, 0), fault=Flip(name, place, 0), brief=place > 0)
        for place in range(twins)
    ]
    copies = kind(run, followers, build(factory, 0))
    batches, steps = Batches(run, ROUNDS), count()
    return lambda: copies.step(next(steps), batches)


def watched_steps(factory: WorkloadFactory = digits_cnn) -> Callable[[], object]:
    workload = build(factory, 0)
    batches, steps = Batches(workload, ROUNDS), count()
    watch = Rerun(k=2, model=workload.model)

    def step() -> None:
        number = next(steps)
        batch = batches.draw(number)
        with watch:
            loss = guarded_step(workload, batch, number)
        finite_loss(loss, number)

    return step


def compared(
    op: str,
    name: str,
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    elements: int = BATCH * 64,
) -> Spread:
    """Ratio of the probe's time to the plain loop's; writes it down with both times."""
    times = interleave(calls, rounds)
    ratio = ratios(times[name], times["plain loop"])
    figures = {who: ("time", "s", Spread.of(seconds)) for who, seconds in times.items()}
    rows = [(who, *figure) for who, figure in figures.items()]
    rows.append((name, "ratio to plain loop", "x", ratio))
    shape = ("float32", elements, torch.get_num_threads())
    write_rows("probe", [Row(op, who, *shape, *figure) for who, *figure in rows])
    return ratio


def test_twin_step(benchmark: BenchmarkFixture) -> None:
    calls = {"twin": lockstep_steps(Lockstep, digits_cnn), "plain loop": plain_steps()}
    ratio = compared("digits-cnn step", "twin", calls, ROUNDS)
    benchmark.pedantic(calls["twin"], rounds=5)
    assert ratio.median <= TWIN_BOUND


def test_several_twins(benchmark: BenchmarkFixture) -> None:
    """The run, its twins and their control beside as many plain steps as there are copies."""
    name = f"{SEVERAL} sequential twins and control"
    calls = {name: lockstep_steps(Lockstep, digits_cnn, SEVERAL), "plain loop": plain_steps()}
    ratio = compared("digits-cnn step", name, calls, ROUNDS)
    benchmark.pedantic(calls[name], rounds=5)
    assert ratio.median <= (SEVERAL + 2) * SEVERAL_BOUND


@pytest.mark.parametrize("factory", [digits_cnn, encoder])
def test_measuring_every_step(benchmark: BenchmarkFixture, factory: WorkloadFactory) -> None:
    """What the comparison of all tensors adds to the steps of run, twin and control."""
    calls = {
        "measured": lockstep_steps(Lockstep, factory),
        "plain loop": lockstep_steps(Unmeasured, factory),
    }
    name = f"lockstep of {factory.__name__.replace('_', '-')}"
    ratio = compared(name, "measured", calls, ROUNDS // 3)
    benchmark.pedantic(calls["measured"], rounds=2)
    assert ratio.median <= MEASURED_BOUND


def test_twin_whole(benchmark: BenchmarkFixture) -> None:
    calls: dict[str, Callable[[], object]] = {
        "twin": lambda: twin(digits_cnn, steps=STEPS),
        "plain loop": lambda: plain_run(digits_cnn, 0, STEPS),
    }
    ratio = compared(f"digits-cnn {STEPS} steps", "twin", calls, WHOLE_ROUNDS)
    benchmark.pedantic(calls["twin"], rounds=1)
    assert ratio.median <= TWIN_BOUND


def test_rerun_step(benchmark: BenchmarkFixture) -> None:
    calls = {"rerun k=2": watched_steps(), "plain loop": plain_steps()}
    ratio = compared("digits-cnn step", "rerun k=2", calls, ROUNDS)
    benchmark.pedantic(calls["rerun k=2"], rounds=5)
    assert ratio.median <= RERUN_BOUND


@pytest.mark.parametrize("threads", [1, 2])
def test_rerun_of_a_transformer(benchmark: BenchmarkFixture, threads: int) -> None:
    with thread_count(threads):
        calls = {"rerun k=2": watched_steps(encoder), "plain loop": plain_steps(encoder)}
        ratio = compared("transformer step", "rerun k=2", calls, ROUNDS // 3, 8 * 64 * 256)
        benchmark.pedantic(calls["rerun k=2"], rounds=2)
    assert ratio.median <= ENCODER_BOUND
