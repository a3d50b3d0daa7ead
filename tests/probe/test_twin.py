from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from probe_workloads import Factory, cross_entropy, endless, net, noisy
from torch import nn

from nondet_probe.env import RngState, available_cpus, read_switches, thread_count
from nondet_probe.errors import RunFailedError, UnknownNameError, UsageError
from nondet_probe.probe.drive import plain_run
from nondet_probe.probe.twin import twin
from nondet_probe.records.schema import TwinRecord
from nondet_probe.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_deterministic_run() -> None:
    record = twin(noisy, seed=3, steps=60)
    assert record.steps == 60
    assert record.control_identical
    assert record.control_differs_step is None
    assert record.control_differs_name is None
    assert record.absorbed_step is None
    assert record.parameters == ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]
    assert record.elements == [96, 16, 16, 16, 48, 3]
    assert record.change.name == "0.weight"
    assert record.change.bit == 0
    assert int(record.change.before, 16) ^ int(record.change.after, 16) == 1
    assert (record.growth is None) != (record.no_growth is None)
    assert 0 < record.plain_seconds < record.probe_seconds

    shapes = {name: values.shape for name, values in record.series.items()}
    one, each, every = (60,), (60, 6), (60, 21)
    assert shapes.pop("tensor_ulps")[:2] == every
    assert shapes == {
        "distance": one,
        "fraction": one,
        "max_ulp": one,
        "loss": one,
        "loss_twin": one,
        "control": one,
        "param_distance": each,
        "param_fraction": each,
        "param_max_ulp": each,
        "kind_distance": (60, 4),
        "tensor_distance": every,
        "tensor_share": every,
        "tensor_cosine": every,
        "tensor_max_ulp": every,
        "tensor_median_ulp": every,
    }
    kinds = [tensor.kind for tensor in record.tensors]
    assert kinds == ["parameter"] * 6 + ["buffer"] * 3 + ["optimizer"] * 6 + ["gradient"] * 6
    assert not record.series["control"].any()
    assert record.series["distance"][-1] > record.series["distance"][0] > 0
    assert (record.series["loss"] != record.series["loss_twin"]).any()
    assert record.series["loss"].tolist() == plain_run(noisy, 3, 60).losses
    reached = np.flatnonzero(record.series["fraction"] >= 0.5)
    assert record.half_step == (reached[0] if reached.size else None)


def bits(record: TwinRecord) -> dict[str, Any]:
    fields = dataclasses.asdict(record)
    return {name: fields[name] for name in fields if "seconds" not in name and name != "series"}


def test_the_probe_itself_repeats() -> None:
    first, second = twin(noisy, steps=20), twin(noisy, steps=20)
    assert bits(first) == bits(second)
    for name, values in first.series.items():
        assert np.array_equal(values, second.series[name])


def growing(seed: int) -> Workload:
    """Four weights of 1; a step sets each to 1 plus 2.5 times the mean of what they exceed 1 by."""
    model = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)

    def step(workload: Workload, batch: Any) -> torch.Tensor:
        weight = workload.model.weight
        with torch.no_grad():
            weight.copy_((1.0 + 2.5 * (weight - 1.0).mean()).expand(1, 4))
        return weight.sum()

    return Workload(model, None, itertools.repeat(0), cross_entropy, step=step)


def test_a_growth_that_is_known() -> None:
    record = twin(growing, steps=30, bit=30)
    assert record.no_growth is None
    assert record.growth is not None
    assert math.isclose(record.growth.rate, math.log(2.5), rel_tol=1e-3)
    assert record.growth.doubling_steps == math.log(2.0) / record.growth.rate
    assert (record.growth.first_step, record.growth.last_step) == (0, 29)
    assert record.half_step == 0


def test_half_of_the_elements_is_half() -> None:
    def copy_on(workload: Workload, batch: Any) -> None:
        with torch.no_grad():
            workload.model.weight[0, 1] = workload.model.weight[0, 0]

    def factory(seed: int) -> Workload:
        model = nn.Linear(4, 1, bias=False)
        return Workload(model, None, endless(), lambda model, batch: model(batch[0][:, :4]).sum())

    record = twin(Factory(factory, after=copy_on), steps=2, index=0)
    assert record.series["fraction"].tolist() == [0.5, 0.5]
    assert record.half_step == 0


def test_the_first_build_may_draw_more_than_the_next_ones() -> None:
    made = itertools.count()

    def factory(seed: int) -> Workload:
        workload = noisy(seed)
        if next(made) == 0:
            torch.rand(1)  # as when data is prepared once and kept
        return workload

    record = twin(factory, steps=3)
    assert record.control_identical
    made = itertools.count()
    assert record.series["loss"].tolist() == plain_run(factory, 0, 3).losses


def test_the_streams_are_put_back() -> None:
    torch.manual_seed(99)
    before = RngState.capture()
    twin(noisy, steps=2)
    assert before.same_as(RngState.capture())
    with pytest.raises(RunFailedError):
        twin(failing_at(1, "raise"), steps=3)
    assert before.same_as(RngState.capture())
    with pytest.raises(UsageError):
        twin(noisy, steps=2, bit=99)
    assert before.same_as(RngState.capture())


class TestTheChangedBit:
    def test_by_default_it_is_the_lowest_of_the_first_matrix(self) -> None:
        def factory(seed: int) -> Workload:
            model = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3))
            return Workload(model, None, endless(), cross_entropy)

        first, again, other = (twin(factory, seed=seed, steps=1).change for seed in (1, 1, 2))
        assert (first.name, first.bit) == ("1.weight", 0)
        assert first == again
        assert first.index != other.index
        indices = {twin(factory, seed=seed, steps=1).change.index for seed in range(30)}
        assert len(indices) > 12
        assert indices <= set(range(18))

    def test_without_a_matrix_it_is_the_first_floating_parameter(self) -> None:
        def factory(seed: int) -> Workload:
            model = nn.Module()
            model.count = nn.Parameter(torch.arange(3), requires_grad=False)
            model.scale = nn.Parameter(torch.ones(3))
            return Workload(model, None, endless(), lambda model, batch: model.scale.sum())

        assert twin(factory, steps=1).change.name == "scale"

    def test_as_asked_for(self) -> None:
        change = twin(noisy, steps=1, name="4.bias", index=2, bit=31).change
        assert (change.name, change.index, change.bit) == ("4.bias", 2, 31)

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"bit": 32}, r"parameter '0.weight': bit 32 is out of range: .* 0 .* to 31"),
            ({"bit": -1}, "bit -1 is out of range"),
            ({"name": "4.bias", "index": 3}, "parameter '4.bias': index 3 .* 0 to 2"),
            ({"name": "4.wieght"}, r"unknown parameter '4.wieght'; did you mean '4.weight'"),
            ({"steps": 0}, "steps=0: a twin needs at least 1"),
            ({"seed": -5}, "seed -5"),
            ({"under": "magic"}, "unknown fix 'magic'"),
        ],
    )
    def test_what_cannot_be_is_said_before_any_step(self, asked: Any, said: str) -> None:
        factory = Factory()
        with pytest.raises(UsageError, match=said) as caught:
            twin(factory, **({"steps": 2} | asked))
        assert factory.calls == 0
        assert isinstance(caught.value, UnknownNameError) == ("unknown" in said)

    def test_a_dtype_without_bits_to_flip(self) -> None:
        def factory(seed: int) -> Workload:
            model = nn.Module()
            model.phase = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
            return Workload(model, None, endless(), cross_entropy)

        with pytest.raises(UsageError, match="no floating-point parameter"):
            twin(factory, steps=1)
        with pytest.raises(UsageError, match="'phase': dtype complex64 is not taken"):
            twin(factory, steps=1, name="phase")

    def test_a_model_whose_parameters_are_not_there_yet(self) -> None:
        def factory(seed: int) -> Workload:
            return Workload(nn.LazyLinear(3), None, endless(), cross_entropy)

        with pytest.raises(UsageError, match="'weight' has no values yet"):
            twin(factory, steps=1)


def test_a_run_that_is_nondeterministic_has_no_growth() -> None:
    factory = Factory()

    def count(workload: Workload, batch: Any) -> None:
        with torch.no_grad():
            workload.model[4].bias[0] += factory.calls * 1e-3

    factory.after = count
    record = twin(factory, steps=25)
    assert not record.control_identical
    assert (record.control_differs_step, record.control_differs_name) == (0, "4.bias")
    assert record.growth is None
    assert record.no_growth is not None
    assert "the run is nondeterministic" in record.no_growth
    assert record.steps == 25
    assert record.series["control"][-1] > 0


def test_a_build_that_is_nondeterministic() -> None:
    made = itertools.count()

    def factory(seed: int) -> Workload:
        model = net()
        with torch.no_grad():
            model[1].bias[0] = next(made)
        return Workload(model, None, endless(), cross_entropy)

    record = twin(factory, steps=5)
    assert not record.control_identical
    assert (record.control_differs_step, record.control_differs_name) == (-1, "1.bias")
    assert record.steps == 0
    assert record.series["distance"].shape == (0,)
    assert record.growth is None
    assert record.no_growth == (
        "building the workload is itself nondeterministic: 1.bias differs between two calls of the "
        "workload function with the same seed"
    )


def test_a_change_that_is_absorbed() -> None:
    def quantised(workload: Workload, batch: Any) -> None:
        with torch.no_grad():
            for parameter in workload.model.parameters():
                parameter.copy_((parameter * 64).round() / 64)

    def factory(seed: int) -> Workload:
        model = nn.Sequential(nn.Linear(6, 3))
        return Workload(
            model, torch.optim.SGD(model.parameters(), lr=0.1), endless(), cross_entropy
        )

    # A high bit of the mantissa: the lowest one is lost to rounding within a few steps.
    assert twin(factory, steps=20, bit=20).absorbed_step is None
    record = twin(Factory(factory, after=quantised), steps=20)
    assert record.absorbed_step == 0
    assert record.growth is None
    assert record.no_growth == "the change was absorbed at step 0"
    assert record.half_step is None


def test_inference_alone_neither_grows_nor_absorbs() -> None:
    def factory(seed: int) -> Workload:
        return Workload(net(), None, endless(), cross_entropy)

    # The batch norm of a model in training mode has buffers that move even so.
    record = twin(factory, steps=20, name="4.weight", bit=20)
    assert record.control_identical
    assert record.absorbed_step is None
    assert record.growth is None
    assert record.no_growth == "no bit but the changed weight's came to differ"
    assert (record.series["fraction"] == 1 / 195).all()
    assert (record.series["loss"] != record.series["loss_twin"]).any()


def failing_at(step: int, how: str) -> Any:
    def factory(seed: int) -> Workload:
        workload = noisy(seed)
        if how == "run out":
            workload.batches = itertools.islice(endless(), step)
            return workload
        calls = itertools.count()

        def loss(model: nn.Module, batch: Any) -> torch.Tensor:
            value = cross_entropy(model, batch)
            if next(calls) < step:
                return value
            if how == "raise":
                raise ValueError("planted")
            return value * float("nan")

        workload.loss = loss
        return workload

    return factory


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("raise", "step 3 failed: ValueError: planted"),
        ("nan", "the loss is nan at step 3"),
        ("run out", "batches ran out at step 3: the workload gave 3 batches, 8 were asked for"),
    ],
)
def test_a_run_that_fails_keeps_the_record_so_far(how: str, said: str) -> None:
    with pytest.raises(RunFailedError, match=said) as caught:
        twin(failing_at(3, how), steps=8)
    assert caught.value.step == 3
    partial = caught.value.partial
    assert isinstance(partial, TwinRecord)
    assert partial.steps == 3
    assert {len(values) for values in partial.series.values()} == {3}
    assert partial.control_identical
    assert partial.growth is None
    whole = twin(noisy, steps=3)
    assert np.array_equal(partial.series["distance"], whole.series["distance"])


def test_a_run_that_fails_at_once() -> None:
    with pytest.raises(RunFailedError) as caught:
        twin(failing_at(0, "raise"), steps=8)
    assert caught.value.partial.no_growth == "no step was completed"


def test_evaluation_of_both() -> None:
    def evaluate(model: nn.Module) -> dict[str, torch.Tensor]:
        return {"sum": model[0].weight.double().sum(), "draw": torch.rand(1)}

    def factory(seed: int) -> Workload:
        workload = noisy(seed)
        workload.evaluate = evaluate
        return workload

    record = twin(factory, steps=4)
    assert record.evaluation["sum"] != record.evaluation_twin["sum"]
    assert record.evaluation["draw"] == record.evaluation_twin["draw"]

    def broken(seed: int) -> Workload:
        workload = noisy(seed)
        workload.evaluate = lambda model: 1 / 0
        return workload

    with pytest.raises(RunFailedError, match="evaluate failed after 4 steps") as caught:
        twin(broken, steps=4)
    assert caught.value.partial.steps == 4


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    twin(noisy, steps=2, progress=lambda *told: seen.append(told))
    twin(noisy, steps=1, under="one thread", progress=lambda *told: seen.append(told))
    assert seen == [("twin", 1, 2), ("twin", 2, 2), ("twin under one thread", 1, 1)]


def test_under_a_switch() -> None:
    seen = []

    def note(workload: Workload, batch: Any) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())

    before = read_switches()
    record = twin(Factory(before=note), steps=2, under="deterministic mode")
    assert record.under == "deterministic mode"
    assert seen == [True] * 6
    with pytest.raises(RunFailedError):
        twin(failing_at(0, "raise"), steps=2, under="deterministic mode")
    assert read_switches() == before


def gathered(seed: int) -> Workload:
    """The backward of a gather from a table: on two threads its order of additions varies."""
    model = nn.Module()
    model.table = nn.Parameter(torch.randn(16384, 64))
    weights = torch.randn(64, 1024, 64)

    def loss(model: nn.Module, index: torch.Tensor) -> torch.Tensor:
        return (model.table[index] * weights).sum()

    def batches() -> Any:
        while True:
            yield torch.randint(0, 16384, (64, 1024))

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return Workload(model, optimizer, batches(), loss)


@pytest.mark.skipif(available_cpus() < 2, reason="a race needs two processors")
def test_a_real_race_is_seen_and_the_fix_removes_it() -> None:
    with thread_count(2):
        record = twin(gathered, steps=4)
        fixed = twin(gathered, steps=2, under="deterministic mode")
    assert not record.control_identical
    assert record.control_differs_name == "table"
    assert fixed.control_identical
