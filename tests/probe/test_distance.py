from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from nondet_probe.probe.distance import Distances, share_different


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    return model, copy.deepcopy(model)


def of(model: nn.Module) -> Distances:
    return Distances([value.numel() for value in model.parameters()])


def test_every_figure_against_numpy() -> None:
    model, other = pair()
    with torch.no_grad():
        other[0].weight[1, 2] += 0.25
        other[1].weight.mul_(1.5)
    distances = of(model)
    assert distances.add(model, model) == 0
    assert distances.add(model, other) == 9
    found = distances.arrays()

    mine = [value.detach().double().numpy().ravel() for value in model.parameters()]
    theirs = [value.detach().double().numpy().ravel() for value in other.parameters()]
    apart = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(mine, theirs, strict=True)]
    whole, moved = np.concatenate(mine), np.concatenate(theirs)
    assert found["param_distance"].dtype == np.float64
    np.testing.assert_array_equal(found["param_distance"][0], 0.0)
    # NumPy adds the squares in another order.
    np.testing.assert_array_max_ulp(found["param_distance"][1], np.array(apart), maxulp=8)
    all_apart = np.linalg.norm(moved - whole) / np.linalg.norm(whole)
    np.testing.assert_array_max_ulp(found["distance"], np.array([0.0, all_apart]), maxulp=8)
    assert found["param_fraction"][1].tolist() == [1 / 12, 0.0, 1.0]
    assert found["fraction"].tolist() == [0.0, 9 / 24]
    assert found["param_max_ulp"].dtype == np.int64
    assert found["max_ulp"].tolist() == [0, found["param_max_ulp"][1].max()]
    assert share_different(model, other) == 9 / 24


def test_one_ulp() -> None:
    model, other = pair()
    other[0].bias.detach().view(torch.int32)[0] += 1
    distances = of(model)
    assert distances.add(model, other) == 1
    assert distances.arrays()["max_ulp"].tolist() == [1]


def test_zero_and_negative_zero_differ_at_no_distance() -> None:
    model, other = pair()
    with torch.no_grad():
        model[0].bias.zero_()
        other[0].bias.fill_(-0.0)
    distances = of(model)
    assert distances.add(model, other) == 4
    found = distances.arrays()
    assert found["param_distance"][0, 1] == 0.0
    assert found["param_fraction"][0, 1] == 1.0


def test_a_run_whose_parameter_is_zero() -> None:
    model, other = pair()
    with torch.no_grad():
        model[0].bias.zero_()
        other[0].bias.fill_(1.0)
    distances = of(model)
    distances.add(model, other)
    assert distances.arrays()["param_distance"][0, 1] == np.inf


def test_nan_in_the_twin() -> None:
    model, other = pair()
    with torch.no_grad():
        other[0].bias[0] = float("nan")
    distances = of(model)
    distances.add(model, other)
    found = distances.arrays()
    assert np.isnan(found["distance"][0])
    assert found["max_ulp"][0] == 2**63 - 1


def test_no_steps_and_no_parameters() -> None:
    found = of(pair()[0]).arrays()
    assert found["distance"].shape == (0,)
    assert found["param_max_ulp"].shape == (0, 3)
    distances = Distances([])
    assert distances.add(nn.ReLU(), nn.ReLU()) == 0
    assert distances.arrays()["fraction"].tolist() == [0.0]
    assert share_different(nn.ReLU(), nn.ReLU()) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_other_dtypes_and_layouts(dtype: torch.dtype) -> None:
    model = nn.Conv2d(3, 4, 3, dtype=dtype).to(memory_format=torch.channels_last)
    other = copy.deepcopy(model)
    distances = of(model)
    assert distances.add(model, other) == 0
    with torch.no_grad():
        other.weight[0, 0, 0, 0] = 0
    assert distances.add(model, other) == 1
    assert distances.arrays()["max_ulp"][1] > 0


def test_integers_have_no_ulp() -> None:
    model = nn.Module()
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    distances = of(model)
    distances.add(model, model)
    assert distances.arrays()["max_ulp"].tolist() == [-1]


def test_parameters_that_change_their_shape() -> None:
    model, other = pair()
    distances = of(model)
    for each in (model, other):
        each[0].bias = nn.Parameter(torch.zeros(5))
    with pytest.raises(ValueError, match="not those it began with"):
        distances.add(model, other)
