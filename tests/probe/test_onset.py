"""The same change at several steps: twins that take the run's state over are those that do not."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from probe_workloads import Factory, cross_entropy, endless, net, noisy
from torch import nn

from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe.checkpoint import copy_state
from nondet_probe.probe.drive import build, plain_run
from nondet_probe.probe.state import first_difference
from nondet_probe.probe.twin import twin
from nondet_probe.records.fault import Fault
from nondet_probe.workload import Workload, take_step

pytestmark = pytest.mark.usefixtures("one_thread")


def evaluating(seed: int) -> Workload:
    workload = noisy(seed)
    examples = torch.randn(50, 6)
    workload.evaluate = lambda model: {"sum": model(examples).double().sum()}
    return workload


def test_each_step_is_what_a_run_of_its_own_gives() -> None:
    """A run of its own follows from step 0: its prefix is computed again, and not copied."""
    factory = Factory(evaluating)
    record = twin(factory, steps=20, twins=2, bit=20, at=[10, 0, 15])
    assert [one.step for one in record.onset] == [0, 10, 15]
    # Run and control and two twins; of the further steps two twins and a control each.
    assert factory.calls == 4 * 20 + 3 * 10 + 3 * 5
    assert record.series["loss"].tolist() == plain_run(noisy, 0, 20).losses
    for one in record.onset:
        name, place = record.change.name, [its.change.index for its in record.twins]
        for number, index in enumerate(place):
            fault = Fault("weight", name, index=index, bit=20, step=one.step, when="before data")
            single = twin(evaluating, steps=20, fault=fault)
            assert one.distance[number] == single.series["distance"][-1] > 0
            assert single.predictions is not None
            assert one.disagreement[number] == single.predictions.disagreement
            assert single.fate is not None
            assert one.fates[number] == single.fate.verdict


@pytest.mark.parametrize("site", ["gradient", "optimizer"])
def test_a_fault_is_repeated_too(site: str) -> None:
    name = {"gradient": "0.weight", "optimizer": "0.weight: momentum_buffer"}[site]
    fault = Fault(site, name, seed=2, bit=21)
    record = twin(noisy, steps=12, fault=fault, at=[3, 9])
    for one in record.onset:
        single = twin(noisy, steps=12, fault=dataclasses.replace(fault, step=one.step))
        assert one.distance == [single.series["distance"][-1]]
        assert one.disagreement == [None]


def test_without_it_there_is_none() -> None:
    assert twin(noisy, steps=2).onset == []
    assert len(twin(noisy, steps=2, at=[1]).onset) == 1


def scheduled(seed: int) -> Workload:
    """A learning rate that a counter outside of the state decides about."""
    workload = noisy(seed)
    done = itertools.count()

    def step(workload: Workload, batch: Any) -> torch.Tensor:
        for group in workload.optimizer.param_groups:
            group["lr"] = 0.1 / (1 + next(done))
        workload.step = None
        loss = take_step(workload, batch)
        workload.step = step
        return loss

    workload.step = step
    return workload


def test_state_that_cannot_be_copied_leaves_no_figures() -> None:
    record = twin(scheduled, steps=8, at=[0, 5])
    assert record.control_identical
    assert record.onset[0].no_figures is None
    assert record.onset[1].distance == []
    assert "took the run's state over before step 5 left the run at step 5" in str(
        record.onset[1].no_figures
    )


def test_a_control_that_differs_leaves_no_figures() -> None:
    factory = Factory()

    def count(workload: Workload, batch: Any) -> None:
        with torch.no_grad():
            workload.model[4].bias[0] += factory.calls * 1e-3

    factory.after = count
    record = twin(factory, steps=4, at=[0, 2])
    assert {one.no_figures for one in record.onset} == {"the control differs"}


def test_a_run_that_fails_has_none_yet() -> None:
    def short(seed: int) -> Workload:
        workload = noisy(seed)
        workload.batches = itertools.islice(endless(), 3)
        return workload

    with pytest.raises(RunFailedError) as caught:
        twin(short, steps=5, at=[0, 1])
    assert [one.no_figures for one in caught.value.partial.onset] == [
        "the run was not followed to its end"
    ] * 2


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ([], "no step is given"),
        ([0, 9], "there is no step 9; whole numbers from 0 to 8 are allowed"),
        ([-1], "there is no step -1"),
        ([1, 4, 1], "step 1 is given twice"),
        ([1.5], "there is no step 1.5"),
        (["3"], "there is no step '3'"),
        ([True], "there is no step True"),
    ],
)
def test_bad_steps(at: Any, said: str) -> None:
    factory = Factory()
    with pytest.raises(UsageError, match=said):
        twin(factory, steps=9, at=at)
    assert factory.built == []


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad", "none"])
def test_a_state_that_was_copied_is_the_same(optimizer: str) -> None:
    def factory(seed: int) -> Workload:
        model = net()
        made = {
            "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
            "adam": lambda: torch.optim.Adam(model.parameters(), amsgrad=True),
            "adagrad": lambda: torch.optim.Adagrad(model.parameters()),
            "none": lambda: None,
        }
        return Workload(model, made[optimizer](), endless(), cross_entropy)

    run, other = build(factory, 0), build(factory, 1)
    for batch in itertools.islice(endless(), 3):
        take_step(run, batch)
    run.model[3].eval()
    assert first_difference(run, other) is not None
    copy_state(run, other)
    assert first_difference(run, other) is None
    assert not other.model[3].training
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(run.model.parameters(), other.model.parameters(), strict=True)
    )


def test_a_state_that_cannot_be_copied_is_refused() -> None:
    run, other = build(noisy, 0), build(noisy, 0)
    other.model.register_buffer("more", torch.zeros(2))
    with pytest.raises(UsageError, match="other shapes than as it was built"):
        copy_state(run, other)
    run, other = build(noisy, 0), build(noisy, 0)
    run.model.thing = nn.Parameter(torch.ones(1))
    other.model.thing = nn.Parameter(torch.ones(1, dtype=torch.float64))
    with pytest.raises(UsageError, match="thing cannot be copied"):
        copy_state(run, other)


def test_a_run_that_has_grown_cannot_be_gone_on_from() -> None:
    """A layer that is trained from the third step on, as in gradual unfreezing."""

    def factory(seed: int) -> Workload:
        model = net()
        optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
        done = itertools.count()

        def step(workload: Workload, batch: Any) -> torch.Tensor:
            if next(done) == 2:
                optimizer.add_param_group({"params": list(model[0].parameters())})
            workload.step = None
            loss = take_step(workload, batch)
            workload.step = step
            return loss

        return Workload(model, optimizer, endless(), cross_entropy, step=step)

    with pytest.raises(RunFailedError, match=r"step 4 of the twin of step 4: .* parameter groups"):
        twin(factory, steps=6, at=[0, 4])
    assert twin(factory, steps=6, at=[0, 2]).onset[1].no_figures is not None


def test_distances_before_the_change_are_none() -> None:
    record = twin(noisy, steps=6, bit=20, at=[2, 4])
    assert twin(noisy, steps=6, fault=Fault("bias", seed=0, bit=0), at=[3]).fault.step == 3
    assert record.series["distance"][:2].tolist() == [0.0, 0.0]
    assert np.all(record.series["distance"][2:] > 0)
