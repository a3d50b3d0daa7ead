"""The verdict on planted cases, each checked against all states compared bit by bit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from probe_workloads import cross_entropy
from torch import nn

from nondet_probe.bits import digest, flip_bit
from nondet_probe.probe.drive import Batches, build
from nondet_probe.probe.fate import fate
from nondet_probe.probe.follower import Follower
from nondet_probe.probe.lockstep import Lockstep
from nondet_probe.probe.state import leaves
from nondet_probe.probe.twin import twin
from nondet_probe.records.measured import Fate
from nondet_probe.workload import Workload, WorkloadFactory

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 40


def state(workload: Workload) -> list[object]:
    """Everything, tensors as their digests."""
    return [
        (name, str(digest(value)) if isinstance(value, torch.Tensor) else repr(value))
        for name, value in leaves(workload)
    ]


def followed(
    factory: WorkloadFactory, change: Callable[[Workload], object], steps: int = STEPS
) -> tuple[Fate, int | None]:
    """The verdict, and the step from which on both states were the same whenever compared."""
    run, other, control = (build(factory, 0) for _ in range(3))
    twin = Follower(run, other)
    copies = Lockstep(run, [twin], control)
    change(other)
    batches = Batches(copies.run, steps)
    same = []
    for step in range(steps):
        copies.step(step, batches)
        same.append(state(run) == state(other))
    assert copies.differs_step is None
    equal_from = len(same) - len(list(itertools.takewhile(bool, reversed(same))))
    found = fate(twin.distances.arrays()["distance"], twin.absorbed_step, twin.spread_step)
    assert twin.absorbed_step == (equal_from if equal_from < steps else None)
    return found, twin.absorbed_step


BATCH = (torch.randn(16, 6, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 3)


def mixed(seed: int) -> Workload:
    """Weights in bfloat16 for the arithmetic, their masters in float32 with the optimizer; the
    first input is 0, so what the first column weighs does not matter."""
    model = nn.Linear(6, 3).to(torch.bfloat16)
    masters = [p.detach().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.SGD(masters, lr=0.1, momentum=0.9)
    inputs = BATCH[0].clone()
    inputs[:, 0] = 0.0

    def step(workload: Workload, batch: Any) -> torch.Tensor:
        workload.model.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(workload.model(inputs.bfloat16()).float(), BATCH[1])
        loss.backward()
        for master, weight in zip(masters, workload.model.parameters(), strict=True):
            master.grad = weight.grad.float()
        optimizer.step()
        with torch.no_grad():
            for master, weight in zip(masters, workload.model.parameters(), strict=True):
                weight.copy_(master)
        return loss

    return Workload(model, optimizer, itertools.repeat(0), cross_entropy, step=step)


def test_a_bfloat16_weight_is_absorbed_when_its_master_overwrites_it() -> None:
    found, step = followed(mixed, lambda w: flip_bit(w.model.weight, 0, 0))
    assert found == Fate("absorbed", "no bit of the state differs any more", 0)
    assert step == 0


def rounding(at: int) -> WorkloadFactory:
    """Plain SGD; in copies marked so, the last bit of one gradient is changed at step `at`.

    A weight of 1 takes a step of 1e-5 times the gradient: its last bit is lost in the rounding.
    """

    def factory(seed: int) -> Workload:
        model = nn.Linear(6, 3)
        nn.init.ones_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
        done = itertools.count()

        def step(workload: Workload, batch: Any) -> torch.Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(workload.model, BATCH)
            loss.backward()
            if next(done) == at and hasattr(workload.model, "marked"):
                flip_bit(workload.model.weight.grad, 3, 0)
            optimizer.step()
            return loss.detach()

        return Workload(model, optimizer, itertools.repeat(0), cross_entropy, step=step)

    return factory


def test_the_last_bit_of_a_gradient_is_absorbed_once_it_is_gone() -> None:
    found, step = followed(rounding(5), lambda w: setattr(w.model, "marked", True))
    assert found.verdict == "absorbed"
    assert step == found.step == 6


def test_a_gradient_that_is_still_there_is_not_called_absorbed() -> None:
    found, step = followed(rounding(STEPS - 1), lambda w: setattr(w.model, "marked", True))
    assert found.verdict == "dormant"
    assert step is None


def test_a_weight_that_nothing_reads_is_dormant() -> None:
    def factory(seed: int) -> Workload:
        model = nn.ModuleDict({"used": nn.Linear(6, 3), "unused": nn.Linear(2, 2)})
        return Workload(
            model,
            torch.optim.SGD(model["used"].parameters(), lr=0.1),
            itertools.repeat(BATCH),
            lambda model, batch: cross_entropy(model["used"], batch),
        )

    found, step = followed(factory, lambda w: flip_bit(w.model["unused"].weight, 0, 0))
    assert found.verdict == "dormant"
    assert step is None


def iterated(change: Callable[[torch.Tensor], torch.Tensor], start: list[float]) -> WorkloadFactory:
    """A "training" whose weights are the state of a map, in float64."""

    def factory(seed: int) -> Workload:
        model = nn.Module()
        model.state = nn.Parameter(torch.tensor(start, dtype=torch.float64))

        def step(workload: Workload, batch: Any) -> torch.Tensor:
            with torch.no_grad():
                workload.model.state.copy_(change(workload.model.state))
            return workload.model.state.sum().detach()

        return Workload(model, None, itertools.repeat(0), cross_entropy, step=step)

    return factory


# Twice the same number, so that it is more than the changed element that comes to differ.
LOGISTIC = iterated(lambda x: (4.0 * x[0] * (1.0 - x[0])).expand(2), [0.3, 0.3])


def test_the_logistic_map_grows_by_ln_2_a_step_and_saturates() -> None:
    record = twin(LOGISTIC, steps=120, index=0)
    assert record.growth is not None
    assert math.isclose(record.growth.rate, math.log(2.0), rel_tol=0.05)
    assert record.growth.low < math.log(2.0) < record.growth.high
    assert math.isclose(record.growth.doubling_steps, 1.0, rel_tol=0.05)
    assert record.fate is not None
    assert record.fate.verdict == "saturated"
    # From one ulp to the size of the attractor in ln(2^52) / ln 2 steps.
    assert 46 <= record.fate.step <= 58
    assert 0.1 < record.fate.level < 2.0
    late = record.series["distance"][record.fate.step :]
    assert record.fate.level == np.median(late)


def test_what_grows_to_the_end_is_growing() -> None:
    record = twin(LOGISTIC, steps=40, index=0)
    assert record.fate is not None
    assert (record.fate.verdict, record.fate.step, record.fate.level) == ("growing", None, None)


def test_a_contraction_is_never_growing() -> None:
    half = iterated(lambda x: 0.5 * x + 0.25 * x.flip(0) + 0.25, [0.3, 0.7])
    record = twin(half, steps=30, index=0, bit=40)
    assert record.fate is not None
    assert record.fate.verdict == "dormant"
    # And in the end, where both are at the fixed point, nothing is left.
    record = twin(half, steps=400, index=0, bit=40)
    assert record.fate is not None
    assert record.fate.verdict == "absorbed"


def test_a_run_whose_control_differs_gets_no_verdict() -> None:
    calls = itertools.count()
    noise = iterated(lambda x: x + next(calls), [1.0, 1.0])
    record = twin(noise, steps=20, index=0)
    assert record.fate is not None
    assert record.fate.verdict == "unknown"
    assert "the control differs" in record.fate.reason


def test_an_overflow_is_a_result_with_its_step() -> None:
    squares = iterated(lambda x: x * x, [0.5, 0.5])
    record = twin(squares, steps=20, index=0, bit=62)  # 0.5 becomes 2^1023
    assert record.fate is not None
    assert (record.fate.verdict, record.fate.step) == ("not finite", 0)
    assert record.steps == 20


def line(slope: float, steps: int) -> Any:
    return 1e-9 * np.exp(slope * np.arange(steps))


@pytest.mark.parametrize(
    ("distance", "absorbed", "spread", "verdict"),
    [
        ([], None, None, "unknown"),
        (line(0.1, 10), None, 0, "unknown"),
        (line(0.1, 50), 20, 0, "absorbed"),
        (line(0.1, 50), None, None, "dormant"),
        (line(0.1, 50), None, 2, "growing"),
        (line(-0.1, 50), None, 0, "dormant"),
        (line(0.0, 50), None, 0, "dormant"),
        ([*line(1.0, 20), *[0.2] * 30], None, 0, "saturated"),
        ([*line(1.0, 20), *[0.2] * 30], 49, 0, "absorbed"),
        # A rise by less than ten is no growth that saturates.
        ([*line(0.1, 20), *[7e-9] * 60], None, 0, "dormant"),
        # Up, and down again.
        ([*line(1.0, 20), *line(1.0, 20)[::-1], *[1e-9] * 40], None, 0, "dormant"),
        # A leap is no line, and no dormancy; a small one may be rounding.
        ([*[1e-9] * 40, *[1e-4] * 8, *[2e-2] * 12], None, 0, "growing"),
        ([*[1e-9] * 50, *[1e-7] * 10], None, 0, "dormant"),
        ([1e-9, 0.0, *line(0.1, 30)], None, 0, "dormant"),
        ([1e-9, math.nan, 1e-9], None, 0, "not finite"),
        ([1e-9, math.inf, 1e-9], None, 0, "not finite"),
    ],
)
def test_the_rules(distance: Any, absorbed: int | None, spread: int | None, verdict: str) -> None:
    found = fate(distance, absorbed, spread)
    assert found.verdict == verdict
    assert found.reason
    assert (found.step is None) == (verdict in {"dormant", "growing", "unknown"})
    assert (found.level is None) == (verdict != "saturated")
