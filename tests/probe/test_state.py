from __future__ import annotations

import pytest
import torch
from probe_workloads import cross_entropy, endless, net
from torch import nn

from nondet_probe.errors import UsageError
from nondet_probe.probe.drive import plain_run
from nondet_probe.probe.state import first_difference, leaves
from nondet_probe.workload import Workload


def adam(seed: int) -> Workload:
    model = net()
    return Workload(model, torch.optim.Adam(model.parameters()), endless(), cross_entropy)


def trained() -> Workload:
    return plain_run(adam, 0, 2).workload


def test_every_part_of_the_state_is_a_leaf_and_in_order() -> None:
    names = [name for name, _ in leaves(trained())]
    assert names[:6] == ["0.weight", "0.bias", "1.weight", "1.bias", "4.weight", "4.bias"]
    assert names[6:9] == [
        "buffer 1.running_mean",
        "buffer 1.running_var",
        "buffer 1.num_batches_tracked",
    ]
    assert "optimizer group 0 lr" in names
    assert "optimizer group 0 betas[1]" in names
    assert "optimizer exp_avg_sq of 4.bias" in names
    assert "optimizer step of 0.weight" in names
    assert len(set(names)) == len(names)


def test_reading_the_state_changes_nothing() -> None:
    workload = adam(0)
    list(leaves(workload))
    assert not workload.optimizer.state


def test_same_runs_have_the_same_state() -> None:
    assert first_difference(trained(), trained()) is None


def _least_bit(tensor: torch.Tensor) -> None:
    tensor.detach().view(-1).view(torch.int32)[0] ^= 1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda w: _least_bit(w.model[4].bias), "4.bias"),
        (lambda w: _least_bit(w.model[1].running_var), "buffer 1.running_var"),
        (lambda w: w.model[1].num_batches_tracked.add_(1), "buffer 1.num_batches_tracked"),
        (
            lambda w: _least_bit(w.optimizer.state[w.model[4].bias]["exp_avg"]),
            "optimizer exp_avg of 4.bias",
        ),
        (lambda w: w.optimizer.param_groups[0].update(lr=0.1 + 0.2), "optimizer group 0 lr"),
        (
            lambda w: w.optimizer.state[w.model[0].weight].update(more=torch.zeros(1)),
            "optimizer more of 0.weight",
        ),
        (lambda w: w.optimizer.state.clear(), "optimizer step of 0.weight"),
    ],
)
def test_each_kind_of_leaf_is_compared(change: object, name: str) -> None:
    one, other = trained(), trained()
    change(other)  # type: ignore[operator]
    assert first_difference(one, other) == name


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (0.0, -0.0, False),
        (float("nan"), float("nan"), True),
        (1, 1.0, False),
        (1, True, False),
        ([1, {"x": torch.ones(1)}], [1, {"x": torch.ones(1)}], True),
        ([1, {"x": torch.ones(1)}], [1, {"x": torch.zeros(1)}], False),
        ([1], [1, 2], False),
        ("a", "b", False),
        (None, None, True),
        (print, repr, True),  # no state that could be compared
        (torch.zeros(1), torch.tensor([-0.0]), False),
        (torch.zeros(1), torch.zeros(1, dtype=torch.float64), False),
        (torch.zeros(1), 0.0, False),
    ],
)
def test_numbers_are_compared_by_their_bits(a: object, b: object, same: bool) -> None:
    one, other = trained(), trained()
    one.optimizer.param_groups[0]["mine"] = a
    other.optimizer.param_groups[0]["mine"] = b
    assert (first_difference(one, other) is None) == same


def test_inference_has_no_optimizer_state() -> None:
    workload = Workload(net(), None, [], cross_entropy)
    assert not [name for name, _ in leaves(workload) if name.startswith("optimizer")]


def test_a_tensor_that_cannot_be_read_is_named() -> None:
    class Odd(torch.Tensor):
        pass

    built = []
    for _ in range(2):
        model = nn.Linear(2, 2)
        model.register_buffer("odd", torch.zeros(2).as_subclass(Odd))
        built.append(Workload(model, None, [], cross_entropy))
    built[1].model.load_state_dict(built[0].model.state_dict())
    with pytest.raises(UsageError, match="buffer odd cannot be compared bit by bit: Odd"):
        first_difference(*built)
