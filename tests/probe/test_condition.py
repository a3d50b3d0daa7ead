"""The bound on a training whose condition number is known, and what is left out of it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from probe_workloads import Factory, noisy
from torch import nn

from nondet_probe.bits import BitChange
from nondet_probe.probe.condition import conditions, relative_change
from nondet_probe.probe.twin import twin
from nondet_probe.records.fault import Fault
from nondet_probe.records.schema import TwinRecord
from nondet_probe.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")


def bounds(record: TwinRecord) -> dict[tuple[str, str], Any]:
    return {(one.of, one.norm): one for one in record.conditions}


def linear(seed: int) -> Workload:
    """Each step multiplies the two weights by 3 and 1/2: the largest ratio is that of the first."""
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))

    def step(workload: Workload, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            workload.model.weight.mul_(torch.tensor([[3.0, 0.5]], dtype=torch.float64))
        return workload.model.weight.sum()

    def evaluate(model: nn.Module) -> dict[str, Any]:
        return {"sum": model(torch.eye(2, dtype=torch.float64)).sum()}

    return Workload(
        model, None, itertools.repeat(0), lambda m, b: m.weight.sum(), step=step, evaluate=evaluate
    )


def test_of_a_linear_map_it_is_known() -> None:
    record = twin(linear, steps=2, index=0, bit=30)
    norm = math.hypot(3 * 9, 4 / 4)
    found = bounds(record)
    # 9 d / ||(27, 1)|| over d / ||(3, 4)||, and over d / 3.
    expected = {
        ("weights", "L2"): 9 / norm * 5,
        ("weights", "element"): 9 / norm * 3,
        ("outputs", "L2"): 9 / norm * 5,
        ("outputs", "element"): 9 / norm * 3,
        ("loss", "L2"): 9 / 28 * 5,
        ("loss", "element"): 9 / 28 * 3,
    }
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        one = found[key]
        assert math.isclose(one.bound, value, rel_tol=1e-6), key
        assert one.bits == math.log2(one.bound)
        assert (one.twins, one.median, one.low, one.high) == (1, one.bound, None, None)


def test_over_twins_it_is_the_largest() -> None:
    record = twin(linear, steps=2, twins=2, bit=30)
    ratios = [9 * 5, 5 / 4]
    norm = math.hypot(27, 1)
    found = bounds(record)["weights", "L2"]
    assert found.twins == 2
    assert math.isclose(found.bound, max(ratios) / norm, rel_tol=1e-6)
    assert math.isclose(found.median, sum(ratios) / 2 / norm, rel_tol=1e-6)
    assert math.isclose(found.low, min(ratios) / norm, rel_tol=1e-6)
    assert math.isclose(found.high, max(ratios) / norm, rel_tol=1e-6)


def test_the_change_counts_from_its_step() -> None:
    """The step before the change is no part of the map: after one step the weights are 9 and 2."""
    fault = Fault("weight", "weight", index=0, bit=30, step=1, when="before data")
    found = bounds(twin(linear, steps=2, fault=fault))["weights", "L2"]
    assert math.isclose(found.bound, 3 / math.hypot(27, 1) * math.hypot(9, 2), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("before", "after", "dtype", "expected"),
    [
        ("0x3f800000", "0x3f800001", "float32", {"L2": 2**-23 / 8, "element": 2**-23}),
        ("0xbc00", "0xbc01", "float16", {"L2": 2**-10 / 8, "element": 2**-10}),
        ("0x00000000", "0x00000001", "float32", {"L2": 2**-149 / 8, "element": math.inf}),
        ("0x3f80", "0x7f80", "bfloat16", {"L2": math.inf, "element": math.inf}),
        ("0xff", "0x01", "int8", {"L2": 2 / 8, "element": 2.0}),
    ],
)
def test_the_size_of_a_change(
    before: str, after: str, dtype: str, expected: dict[str, float]
) -> None:
    assert relative_change(BitChange("w", 0, 0, dtype, before, after), 8.0) == expected


def test_what_is_not_finite_is_left_out() -> None:
    sizes = [{"L2": 0.5, "element": math.inf}, {"L2": math.nan, "element": 0.25}]
    sizes.append({"L2": 0.5, "element": 0.5})
    found = conditions(sizes, {"weights": [1.0, 2.0, math.inf], "outputs": [None, None, None]})
    assert [(one.of, one.norm, one.bound, one.twins) for one in found] == [
        ("weights", "L2", 2.0, 1),
        ("weights", "element", 8.0, 1),
    ]
    absorbed = conditions([{"L2": 0.5, "element": 0.5}], {"weights": [0.0]})
    assert (absorbed[0].bound, absorbed[0].bits) == (0.0, -math.inf)


def test_the_interval_holds_the_median_about_as_often_as_it_says() -> None:
    drawing = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        values = drawing.lognormal(size=20).tolist()
        [found] = conditions([{"L2": 1.0, "element": math.inf}] * 20, {"loss": values})
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.0 <= found.high
    assert 85 <= held <= 99
    [again] = conditions([{"L2": 1.0, "element": math.inf}] * 20, {"loss": values})
    assert again == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"fault": Fault("gradient", "0.weight", seed=0, bit=22)}, "the fault is of site gradient"),
        ({"bit": 30, "index": 5}, "no twin gave a ratio that is finite"),
    ],
)
def test_where_there_is_none_the_record_says_why(asked: Any, said: str) -> None:
    record = twin(huge, steps=3, **asked)
    assert record.conditions == []
    assert said in str(record.no_conditions)


def huge(seed: int) -> Workload:
    """An exponent bit makes its weights infinite."""
    workload = noisy(seed)
    with torch.no_grad():
        workload.model[0].weight.fill_(1.0)
    return workload


def test_a_control_that_differs_leaves_none() -> None:
    factory = Factory()

    def count(workload: Workload, batch: Any) -> None:
        with torch.no_grad():
            workload.model[4].bias[0] += factory.calls * 1e-3

    factory.after = count
    record = twin(factory, steps=3)
    assert record.conditions == []
    assert "the control differs" in str(record.no_conditions)
