from __future__ import annotations

from itertools import islice, pairwise

import pytest
import torch

from nondet_probe.env.rng import RngState, seed_all
from nondet_probe.errors import UnknownNameError
from nondet_probe.workload import Workload, take_step
from nondet_probe.workloads import load_target
from nondet_probe.workloads.digits_mlp import DEPTHS, WIDTH, DigitsMlp, Shape, smelu


def built(name: str, seed: int = 0) -> Workload:
    factory = load_target(name)
    seed_all(seed)
    return factory(seed)


def trained(workload: Workload, steps: int) -> list[torch.Tensor]:
    """Bits of the parameters after `steps` steps."""
    for batch in islice(workload.batches, steps):
        take_step(workload, batch)
    return [value.detach().clone().view(torch.int32) for value in workload.model.parameters()]


def test_smelu_is_its_formula() -> None:
    x = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], requires_grad=True)
    y = smelu(x)
    # Of numbers with few digits, so every step is exact.
    assert y.tolist() == [0.0, 0.0, 0.0625, 0.25, 0.5625, 1.0, 2.0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    narrow = torch.tensor([-0.5, 0.0, 0.5, 4.0])
    assert smelu(narrow, 0.5).tolist() == [0.0, 0.125, 0.5, 4.0]


@pytest.mark.parametrize(
    ("name", "layers", "norms"),
    [("0", 0, 0), ("1-relu", 1, 0), ("4-smelu-norm", 4, 4), ("8-relu-norm-full", 8, 8)],
)
def test_a_member_is_what_its_name_says(name: str, layers: int, norms: int) -> None:
    workload = built(f"digits-mlp-{name}")
    model = workload.model
    assert isinstance(model, DigitsMlp)
    found = [type(module) for module in model.modules()]
    assert found.count(torch.nn.Linear) == layers + 1
    assert found.count(torch.nn.BatchNorm1d) == norms
    assert (model.activation is smelu) == ("smelu" in name)
    sizes = [64] + [WIDTH] * layers + [10]
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    shapes = [(module.in_features, module.out_features) for module in linear]
    assert shapes == list(pairwise(sizes))
    first, second = islice(workload.batches, 2)
    assert first[0].shape == (1437 if "full" in name else 256, 1, 8, 8)
    assert torch.equal(first[1], second[1]) == ("full" in name)


def test_every_member_has_one_name() -> None:
    shapes = [
        Shape(depth, activation, norm, full)
        for depth in DEPTHS
        for activation in ("relu", "smelu")
        for norm in (False, True)
        for full in (False, True)
    ]
    names = {shape.name for shape in shapes}
    assert len(names) == 2 * (1 + 8 * 4)
    for name in names:
        assert load_target(f"digits-mlp-{name}").__name__ == f"digits_mlp_{name.replace('-', '_')}"


def test_alone_it_is_one_hidden_layer() -> None:
    one, other = trained(built("digits-mlp"), 3), trained(built("digits-mlp-1-relu"), 3)
    assert all(map(torch.equal, one, other))
    assert len(one) == 4


@pytest.mark.parametrize("given", ["4-smleu", "9-relu", "0-norm", "1", ""])
def test_a_member_that_is_not_there(given: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown member of digits-mlp: .*Known: 0, 0-full"):
        load_target(f"digits-mlp-{given}")
    with pytest.raises(UnknownNameError, match="did you mean '4-smelu'"):
        load_target("digits-mlp-4-smleu")


def test_same_bits_every_time_and_the_global_streams_are_left_alone() -> None:
    first = trained(built("digits-mlp-2-smelu-norm"), 5)
    assert all(map(torch.equal, first, trained(built("digits-mlp-2-smelu-norm"), 5)))
    assert not all(map(torch.equal, first, trained(built("digits-mlp-2-smelu-norm", 1), 5)))
    workload = built("digits-mlp-2-smelu-norm")
    before = RngState.capture()
    trained(workload, 3)
    assert RngState.capture().same_as(before)


@pytest.mark.parametrize("name", ["0", "2-relu", "8-smelu-norm"])
def test_learns(name: str) -> None:
    workload = built(f"digits-mlp-{name}")
    assert workload.evaluate is not None
    untrained = workload.evaluate(workload.model)["accuracy"]
    trained(workload, 40)
    assert workload.evaluate(workload.model)["accuracy"] > 0.85 > 0.4 > untrained
