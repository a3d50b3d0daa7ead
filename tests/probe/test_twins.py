"""Several twins of one run, each with another element, and faults at any step and site."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from probe_workloads import Factory, cross_entropy, endless, net, noisy
from torch import nn

from nondet_probe.errors import RunFailedError, UnknownNameError, UsageError
from nondet_probe.probe.drive import Batches, build, plain_run
from nondet_probe.probe.follower import Follower
from nondet_probe.probe.lockstep import Lockstep
from nondet_probe.probe.twin import twin
from nondet_probe.records.fault import SITES, Fault
from nondet_probe.records.schema import TwinRecord
from nondet_probe.workload import Workload, WorkloadFactory

pytestmark = pytest.mark.usefixtures("one_thread")


def adam(seed: int) -> Workload:
    model = net()
    return Workload(model, torch.optim.Adam(model.parameters()), endless(), cross_entropy)


@pytest.mark.parametrize(("factory", "steps"), [(noisy, 300), (adam, 100)])
def test_twins_without_a_change_stay_the_run(factory: WorkloadFactory, steps: int) -> None:
    """Dropout, batch norm, augmentation, momentum, Adam; those that take the state over as well."""
    run, *others = (build(factory, 3) for _ in range(3))
    born = [0, steps // 2]
    followers = [Follower(run, other, born=step) for other, step in zip(others, born, strict=True)]
    copies = Lockstep(run, followers, build(factory, 3))
    batches = Batches(run, steps)
    for step in range(steps):
        copies.step(step, batches)
    assert copies.differs_step is None
    for one in followers:
        assert one.left is None
        assert one.losses == copies.losses[one.born :]
        assert not one.distances.overall()["fraction"].any()
    assert copies.losses == plain_run(factory, 3, steps).losses


def alone(record: TwinRecord, number: int) -> dict[str, Any]:
    """What a record of several says of one, as a record of that one alone says it."""
    told = dataclasses.asdict(record.twins[number])
    for name in ("distance", "fraction", "loss"):
        told[name] = record.series[f"twins_{name}"][:, number].tolist()
    return told


def of_one(record: TwinRecord) -> dict[str, Any]:
    fields = dataclasses.asdict(record)
    names = (
        [field.name for field in dataclasses.fields(type(record.twins[0]))]
        if record.twins
        else NAMES
    )
    told = {name: fields[name] for name in names if name != "evaluation"}
    told["evaluation"] = record.evaluation_twin
    for name, series in (("distance", "distance"), ("fraction", "fraction"), ("loss", "loss_twin")):
        told[name] = record.series[series].tolist()
    return told


NAMES = [
    "change", "absorbed_step", "half_step", "growth", "no_growth", "fate", "predictions",
    "no_predictions",
]  # fmt: skip


def evaluating(seed: int) -> Workload:
    workload = noisy(seed)
    examples = torch.randn(20, 6)
    workload.evaluate = lambda model: {"sum": model(examples).double().sum()}
    return workload


def test_three_are_what_three_alone_are() -> None:
    together = twin(evaluating, steps=25, twins=3)
    assert len(together.twins) == 3
    for number, one in enumerate(together.twins):
        assert one.change is not None
        single = twin(evaluating, steps=25, name=one.change.name, index=one.change.index)
        assert alone(together, number) == of_one(single)
        assert single.twins == []
    # The first one is the twin that there is without the others.
    first = twin(evaluating, steps=25)
    assert of_one(first) == alone(together, 0)
    for name, values in first.series.items():
        assert np.array_equal(values, together.series[name], equal_nan=True)


@pytest.mark.parametrize("site", ["weight", "gradient", "input", "output", "batch", "rng"])
def test_three_faults_are_what_three_alone_are(site: str) -> None:
    names = {"input": "4", "output": "0", "batch": "0", "rng": "torch cpu"}
    fault = Fault(site, names.get(site), seed=5, number=2, bit=20, step=3)
    together = twin(noisy, steps=12, twins=3, fault=fault)
    assert together.fault == fault
    for number in range(3):
        single = twin(noisy, steps=12, fault=dataclasses.replace(fault, number=2 + number))
        assert alone(together, number) == of_one(single)
        assert single.change is not None


def test_elements_are_distinct() -> None:
    record = twin(noisy, steps=1, twins=16, name="1.weight")
    drawn = {one.change.index for one in record.twins if one.change is not None}
    assert drawn == set(range(16))
    record = twin(noisy, steps=1, twins=35, fault=Fault("bias", seed=1, bit=0))
    changes = [one.change for one in record.twins if one.change is not None]
    assert len({(change.name, change.index) for change in changes}) == 35


def test_the_stem_of_the_paper_repeats_itself() -> None:
    """Seeds 5 and 20 of the original draw the same in its 432 weights."""

    def stem(seed: int) -> Workload:
        model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.Flatten(), nn.Linear(16, 3))
        batches = itertools.repeat((torch.randn(2, 3, 3, 3), torch.tensor([0, 1])))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return Workload(model, optimizer, batches, cross_entropy)

    fault = Fault("weight", seed=5, change="paper_stem")
    record = twin(stem, steps=4, twins=16, fault=fault)
    assert record.twins[0].change == record.twins[15].change
    assert record.twins[0].change != record.twins[1].change
    series = record.series["twins_distance"]
    assert series[:, 0].tolist() == series[:, 15].tolist()


def test_a_fault_at_a_later_step() -> None:
    record = twin(noisy, steps=30, twins=2, fault=Fault("weight", seed=0, bit=20, step=10))
    distance = record.series["twins_distance"]
    assert not distance[:10].any()
    assert distance[10:].all()
    assert record.control_identical
    assert record.absorbed_step is None
    assert record.series["loss"].tolist() == plain_run(noisy, 0, 30).losses


SITED = {
    "weight": Fault("weight", "0.weight", seed=0, bit=22, step=2),
    "bias": Fault("bias", "4.bias", seed=0, change="ulp up", step=2),
    "buffer": Fault("buffer", "1.running_mean", seed=0, bit=22, step=2),
    "input": Fault("input", "4", seed=0, bit=22, step=2),
    "output": Fault("output", "0", seed=0, bit=22, step=2),
    "gradient": Fault("gradient", "0.weight", seed=0, bit=22, step=2),
    "optimizer": Fault("optimizer", "0.weight: momentum_buffer", seed=0, bit=22, step=2),
    "batch": Fault("batch", "0", seed=0, bit=22, step=2),
    "rng": Fault("rng", "torch cpu", index=600, bit=20, step=2),
}


def test_every_site_is_looked_at() -> None:
    assert set(SITED) == set(SITES)


@pytest.mark.parametrize("site", SITED)
def test_every_site_can_be_changed(site: str) -> None:
    record = twin(noisy, steps=6, fault=SITED[site])
    assert record.change is not None
    assert record.control_identical
    assert not record.series["kind_distance"][:2, [0, 2, 3]].any()
    assert np.nan_to_num(record.series["tensor_distance"][2:]).any()
    assert record.series["loss"].tolist() == plain_run(noisy, 0, 6).losses


@pytest.mark.parametrize("when", ["before data", "after data", "after backward", "after optimizer"])
def test_a_moment_can_be_chosen(when: str) -> None:
    fault = Fault("weight", "0.weight", index=3, bit=22, step=2, when=when)
    record = twin(noisy, steps=5, fault=fault)
    same_loss = record.series["loss"] == record.series["loss_twin"]
    at_once = when.endswith("data")
    assert same_loss.tolist() == [True, True, not at_once, False, False]
    assert record.series["distance"][2] > 0 == record.series["distance"][1]


class Rounded(nn.Module):
    """Has a weight that no output sees and that each forward rounds, beside those that count."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = net()
        self.coarse4 = nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.coarse4.copy_((self.coarse4 * 64).round() / 64)
        return self.layers(images)


def absorbing(seed: int) -> Workload:
    model = Rounded()
    optimizer = torch.optim.SGD(model.layers.parameters(), lr=0.5)
    return Workload(model, optimizer, endless(), cross_entropy)


def test_one_is_absorbed_among_growing_ones() -> None:
    # The 4 elements of `coarse4` are drawn with the 48 of the other: number 0 is one of them.
    fault = Fault("weight", "*4*", seed=3, bit=12)
    record = twin(absorbing, steps=60, twins=3, fault=fault)
    names = [one.change.name for one in record.twins if one.change is not None]
    assert names == ["coarse4", "layers.4.weight", "layers.4.weight"]
    verdicts = [one.fate.verdict for one in record.twins if one.fate is not None]
    assert (verdicts[0], record.absorbed_step) == ("absorbed", 0)
    assert not {"absorbed", "unknown"} & set(verdicts[1:])
    assert record.series["twins_distance"].any(axis=0).tolist() == [False, True, True]


def test_absorbed_at_its_own_step_and_not_before_it() -> None:
    record = twin(absorbing, steps=20, fault=Fault("weight", "coarse4", index=0, bit=0, step=7))
    assert record.absorbed_step == 7
    assert record.fate is not None
    assert record.fate.step == 7


def test_the_fan() -> None:
    record = twin(noisy, steps=5, twins=4)
    distance = record.series["twins_distance"]
    expected = np.quantile(distance, [0.25, 0.5, 0.75], axis=1).T
    assert record.series["twins_fan"].shape == (5, 3)
    off = np.abs(record.series["twins_fan"] - expected)
    assert (off <= 1e-12 * expected).all()


def test_a_twin_that_ends_in_no_number_is_the_furthest() -> None:
    # The highest bit of the exponent: weights below 2 become huge.
    record = twin(noisy, steps=8, twins=4, bit=30)
    assert not np.isfinite(record.series["twins_distance"]).all()
    assert not np.isnan(record.series["twins_fan"]).any()
    verdicts = [one.fate.verdict for one in record.twins if one.fate is not None]
    assert "not finite" in verdicts


def test_a_control_that_differs_leaves_no_figure() -> None:
    factory = Factory()

    def count(workload: Workload, batch: Any) -> None:
        with torch.no_grad():
            workload.model[4].bias[0] += factory.calls * 1e-3

    factory.after = count
    record = twin(factory, steps=20, twins=2)
    assert not record.control_identical
    for one in record.twins:
        assert one.growth is None
        assert one.fate is not None
        assert one.fate.verdict == "unknown"


def test_a_twin_that_leaves_the_run_before_its_change_is_a_difference() -> None:
    factory = Factory()

    def only_the_twin(workload: Workload, batch: Any) -> None:
        if workload is factory.built[1] and factory.calls > 3:
            with torch.no_grad():
                workload.model[4].bias[0] += 1e-3

    factory.after = only_the_twin
    record = twin(factory, steps=8, fault=Fault("weight", seed=0, bit=0, step=5))
    assert (record.control_differs_step, record.control_differs_name) == (1, "4.bias")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"twins": 0}, "twins=0: how many there are, a whole number from 1 up"),
        ({"twins": 1.5}, "twins=1.5"),
        ({"twins": True}, "twins=True"),
        ({"twins": 2, "index": 0}, "index=0 is one; leave the index out"),
        ({"twins": 97}, "parameter '0.weight' has 96 elements.*allowed are 1 to 96"),
        ({"fault": "fault.json"}, "a nondet_probe.Fault is needed, not str"),
        (
            {"fault": Fault("weight", seed=0, bit=0, step=9)},
            "step 9 of the fault is beyond.*0 to 8",
        ),
        ({"fault": Fault("weight", seed=0, bit=0), "bit": 3}, "with a fault, name, index and bit"),
        ({"fault": Fault("weight", seed=0, bit=0), "name": "0.weight"}, "with a fault"),
        (
            {"fault": Fault("weight", "0.weight", index=0, bit=0), "twins": 2},
            "the fault names one by its index",
        ),
        ({"fault": Fault("weight", "0.wieght", seed=0, bit=0)}, "did you mean '0.weight'"),
        ({"fault": Fault("weight", "0.weight", index=96, bit=0)}, "index 96 is out of range"),
        ({"fault": Fault("weight", "0.weight", seed=0, bit=32)}, "bit 32 is out of range"),
        ({"fault": Fault("bias", "4.bias", seed=0, bit=0), "twins": 4}, "number 3 of the draws"),
        ({"fault": Fault("output", "9", seed=0, bit=0)}, "unknown module '9'"),
    ],
)
def test_what_cannot_be_is_said_before_any_step(asked: Any, said: str) -> None:
    factory = Factory()
    with pytest.raises(UsageError, match=said) as caught:
        twin(factory, **({"steps": 9} | asked))
    assert factory.calls == 0
    assert isinstance(caught.value, UnknownNameError) == ("unknown" in str(caught.value))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            Fault("optimizer", "0.weight: exp_avg", seed=0, bit=0, step=2),
            r"nothing was injected \(bit 0 of optimizer 0.weight: exp_avg .* step 2, .*: unknown",
        ),
        (Fault("batch", "2", seed=0, bit=0, step=2), "unknown tensor in the batch '2'"),
        (Fault("batch", "1", seed=0, change="ulp up", step=2), "have no ulp|has dtype int64"),
        (Fault("output", "0", index=10**6, bit=0, step=2), "index 1000000 is out of range"),
    ],
)
def test_what_shows_at_its_step_keeps_what_was_found(fault: Fault, said: str) -> None:
    with pytest.raises(RunFailedError, match=said) as caught:
        twin(noisy, steps=6, fault=fault)
    partial = caught.value.partial
    assert caught.value.step == 2
    assert isinstance(partial, TwinRecord)
    assert (partial.steps, partial.change) == (2, None)
    assert partial.fate is not None
    assert partial.fate.verdict == "unknown"
    assert "did not come to step 2" in str(partial.no_growth)


def test_progress_names_how_many() -> None:
    seen: list[tuple[str, int, int]] = []
    twin(noisy, steps=1, twins=3, progress=lambda *told: seen.append(told))
    assert seen == [("3 twins", 1, 1)]
