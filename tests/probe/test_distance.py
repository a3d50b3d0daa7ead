from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from probe_workloads import noisy
from torch import nn

from nondet_probe.bits import compare, ulp_distance
from nondet_probe.env.rng import RngState
from nondet_probe.probe.distance import Distances, share_different
from nondet_probe.probe.drive import build
from nondet_probe.probe.state import KINDS, first_difference, parts
from nondet_probe.workload import Workload, take_step

pytestmark = pytest.mark.usefixtures("one_thread")


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    return model, copy.deepcopy(model)


def of(model: nn.Module) -> Distances:
    return Distances(workload(model))


def workload(model: nn.Module) -> Workload:
    return Workload(model, None, [], lambda model, batch: batch)


def add(distances: Distances, model: nn.Module, other: nn.Module) -> int:
    return distances.add(workload(model), workload(other)).parameters


def test_every_figure_against_numpy() -> None:
    model, other = pair()
    with torch.no_grad():
        other[0].weight[1, 2] += 0.25
        other[1].weight.mul_(1.5)
    distances = of(model)
    assert add(distances, model, model) == 0
    assert add(distances, model, other) == 9
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
    assert add(distances, model, other) == 1
    assert distances.arrays()["max_ulp"].tolist() == [1]


def test_zero_and_negative_zero_differ_at_no_distance() -> None:
    model, other = pair()
    with torch.no_grad():
        model[0].bias.zero_()
        other[0].bias.fill_(-0.0)
    distances = of(model)
    assert add(distances, model, other) == 4
    found = distances.arrays()
    assert found["param_distance"][0, 1] == 0.0
    assert found["param_fraction"][0, 1] == 1.0


def test_a_run_whose_parameter_is_zero() -> None:
    model, other = pair()
    with torch.no_grad():
        model[0].bias.zero_()
        other[0].bias.fill_(1.0)
    distances = of(model)
    add(distances, model, other)
    assert distances.arrays()["param_distance"][0, 1] == np.inf


def test_nan_in_the_twin() -> None:
    model, other = pair()
    with torch.no_grad():
        other[0].bias[0] = float("nan")
    distances = of(model)
    add(distances, model, other)
    found = distances.arrays()
    assert np.isnan(found["distance"][0])
    assert found["max_ulp"][0] == 2**63 - 1


def test_no_steps_and_no_parameters() -> None:
    found = of(pair()[0]).arrays()
    assert found["distance"].shape == (0,)
    assert found["param_max_ulp"].shape == (0, 3)
    distances = of(nn.ReLU())
    assert add(distances, nn.ReLU(), nn.ReLU()) == 0
    assert distances.arrays()["fraction"].tolist() == [0.0]
    assert share_different(nn.ReLU(), nn.ReLU()) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_other_dtypes_and_layouts(dtype: torch.dtype) -> None:
    model = nn.Conv2d(3, 4, 3, dtype=dtype).to(memory_format=torch.channels_last)
    other = copy.deepcopy(model)
    distances = of(model)
    assert add(distances, model, other) == 0
    with torch.no_grad():
        other.weight[0, 0, 0, 0] = 0
    assert add(distances, model, other) == 1
    assert distances.arrays()["max_ulp"][1] > 0


def test_integers_have_no_ulp() -> None:
    model = nn.Module()
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    distances = of(model)
    add(distances, model, model)
    assert distances.arrays()["max_ulp"].tolist() == [-1]


def test_parameters_that_change_their_shape() -> None:
    model, other = pair()
    distances = of(model)
    for each in (model, other):
        each[0].bias = nn.Parameter(torch.zeros(5))
    with pytest.raises(ValueError, match="not those it began with"):
        add(distances, model, other)


def stepping(seed: int) -> Workload:
    return build(noisy, seed)


def step_both(*copies: Workload) -> None:
    """One step of each, on one batch and from the same state of the random streams."""
    streams = RngState.capture()
    for each in copies:
        streams.restore()
        take_step(each, (torch.randn(8, 6), torch.arange(8) % 3))


def one_step_apart() -> tuple[Workload, Workload, Distances]:
    """Two copies after one step on one batch, one of them from a changed weight."""
    run, other = stepping(0), stepping(0)
    with torch.no_grad():
        other.model[0].weight[1, 1] += 0.5
    distances = Distances(run)
    step_both(run, other)
    distances.add(run, other)
    return run, other, distances


def test_every_tensor_of_the_state_has_its_figures() -> None:
    run, other, distances = one_step_apart()
    found = distances.arrays()
    kinds = ["parameter"] * 6 + ["buffer"] * 3 + ["optimizer"] * 6 + ["gradient"] * 6
    assert [tensor.kind for tensor in distances.tensors] == kinds
    assert distances.tensors[9].name == "momentum_buffer of 0.weight"
    theirs = [part.value for part in parts(other) if isinstance(part.value, torch.Tensor)]
    mine = [part.value for part in parts(run) if isinstance(part.value, torch.Tensor)]
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        x, y = (t.detach().double().numpy().ravel() for t in (a, b))
        pair = compare(a, b)
        assert found["tensor_share"][0, i] == pair.different / len(x)
        assert found["tensor_max_ulp"][0, i] == (-1 if pair.max_ulp is None else pair.max_ulp)
        apart = np.linalg.norm(y - x) / np.linalg.norm(x)
        cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        # NumPy adds in another order.
        np.testing.assert_array_max_ulp(found["tensor_distance"][0, i], apart, maxulp=16)
        np.testing.assert_array_max_ulp(found["tensor_cosine"][0, i], cosine, maxulp=16)
        if pair.ulps is not None:
            distance = np.sort(ulp_distance(a, b).numpy().ravel())
            median = distance[(len(distance) - 1) // 2]
            bound = found["tensor_median_ulp"][0, i]
            assert median <= bound <= max(2 * median - 1, 0)
            histogram = found["tensor_ulps"][0, i].tolist()
            used = np.trim_zeros(pair.ulps[:-1], "b")
            assert histogram[: len(used)] == list(used)
            assert sum(histogram) == len(x)
    assert (found["tensor_cosine"][0] < 1.0).any()


def test_the_distance_of_a_kind_is_that_of_all_its_tensors_together() -> None:
    run, other, distances = one_step_apart()
    found = distances.arrays()["kind_distance"]
    for column, kind in enumerate(KINDS):
        flat = [
            np.concatenate(
                [
                    part.value.detach().double().numpy().ravel()
                    for part in parts(each)
                    if part.kind == kind and isinstance(part.value, torch.Tensor)
                ]
            )
            for each in (run, other)
        ]
        apart = np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])
        np.testing.assert_array_max_ulp(found[0, column], apart, maxulp=32)
        assert found[0, column] > 0.0


def test_what_is_not_there_has_no_figures() -> None:
    run, other = stepping(0), stepping(0)
    distances = Distances(run)
    distances.add(run, other)
    step_both(run, other)
    distances.add(run, other)
    run.model[4].bias.grad = None
    assert distances.add(run, other).first == "gradient 4.bias"
    found = distances.arrays()
    assert np.isnan(found["kind_distance"][0, 2:]).all()
    assert (found["kind_distance"][1:] != 0).sum() == 0
    gradient = len(distances.tensors) - 1
    assert distances.tensors[gradient].name == "4.bias"
    for name, missing in (("tensor_max_ulp", -1), ("tensor_median_ulp", -1)):
        assert found[name][:, gradient].tolist() == [missing, 0, missing]
    for name in ("tensor_distance", "tensor_share", "tensor_cosine"):
        assert np.isnan(found[name][:, gradient]).tolist() == [True, False, True]
    assert found["tensor_ulps"][:, gradient].sum(axis=1).tolist() == [0, 3, 0]
    assert found["tensor_cosine"][1, gradient] == 1.0


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda w: w.model[1].num_batches_tracked.add_(1), "buffer 1.num_batches_tracked"),
        (lambda w: w.optimizer.param_groups[0].update(lr=0.3), "optimizer group 0 lr"),
        (lambda w: w.optimizer.param_groups[0].update(more=None), "optimizer group 0 more"),
        (lambda w: w.model[4].weight.grad.view(-1)[:1].neg_(), "gradient 4.weight"),
        (
            lambda w: w.optimizer.state[w.model[4].bias].update(momentum_buffer=torch.zeros(2)),
            "optimizer momentum_buffer of 4.bias",
        ),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_the_first_difference_of_any_kind_is_named(
    change: Callable[[Workload], object], first: str, swapped: bool
) -> None:
    run, other = stepping(0), stepping(0)
    step_both(run, other)
    one, two = (other, run) if swapped else (run, other)
    assert Distances(run).add(one, two).first is None
    change(other)
    assert Distances(run).add(one, two).first == first
    assert first_difference(one, two) == first


def test_sparse_gradients_are_seen() -> None:
    def made() -> Workload:
        model = nn.Embedding(5, 2, sparse=True)
        model.weight.data.fill_(1.0)
        model(torch.tensor([1, 3, 3])).sum().backward()
        return workload(model)

    run, other = made(), made()
    assert Distances(run).add(run, other).first is None
    other.model.weight.grad._values()[0, 0] = 5.0
    assert Distances(run).add(run, other).first == "gradient weight"


def test_the_histogram_is_as_small_as_it_fits() -> None:
    model, other = pair()
    distances = of(model)
    add(distances, model, other)
    assert distances.arrays()["tensor_ulps"].shape == (1, 3, 2)
    other[0].bias.detach().view(torch.int32)[0] += 5
    other[0].bias.detach()[1] = float("nan")
    add(distances, model, other)
    found = distances.arrays()
    assert found["tensor_ulps"].dtype == np.uint8
    assert found["tensor_ulps"][1, 1].tolist() == [2, 0, 0, 1, 1]
    assert found["tensor_median_ulp"][1].tolist() == [0, 0, 0]
