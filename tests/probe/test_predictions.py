from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nondet_probe.bits import flip_bit
from nondet_probe.probe.predictions import Outputs, predictions, watched
from nondet_probe.records.measured import Predictions


def outputs(*tensors: torch.Tensor) -> Outputs:
    found = Outputs()
    found.tensors = list(tensors)
    return found


def test_the_figures() -> None:
    run = outputs(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.tensor([[0.0, 3.0]]))
    twin = outputs(torch.tensor([[1.0, 2.0], [1.0, 3.0]]), torch.tensor([[0.0, 3.0]]))
    found, why = predictions(run, twin)
    assert why is None
    assert found == Predictions(3, 1 / 3, 3.0 / 39.0**0.5, 2**24)


def test_equal_outputs_and_a_last_bit() -> None:
    run = outputs(torch.tensor([[0.5, 0.25]]))
    assert predictions(run, run) == (Predictions(1, 0.0, 0.0, 0), None)
    twin = outputs(torch.tensor([[0.5, 0.25]]))
    flip_bit(twin.tensors[0], 0, 0)
    found, _ = predictions(run, twin)
    assert found is not None
    assert (found.disagreement, found.max_ulp) == (0.0, 1)
    assert found.distance > 0.0


def test_one_output_a_row_makes_no_choice() -> None:
    run, twin = outputs(torch.zeros(4, 1)), outputs(torch.ones(4, 1))
    assert predictions(run, twin) == (Predictions(4, None, float("inf"), 127 << 23), None)


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        (outputs(), "different examples"),
        (outputs(torch.zeros(3, 2)), "different examples"),
        (outputs(torch.zeros(2, 2, dtype=torch.float64)), "different examples"),
    ],
)
def test_outputs_of_other_examples_are_not_compared(twin: Outputs, said: str) -> None:
    found, why = predictions(outputs(torch.zeros(2, 2)), twin)
    assert found is None
    assert said in str(why)


def test_outputs_that_cannot_be_read() -> None:
    odd = outputs(torch.eye(2).to_sparse())
    found, why = predictions(odd, odd)
    assert found is None
    assert str(why).startswith("the outputs cannot be compared: layout torch.sparse_coo")


class Returning(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"logits": 1}, "the model returns a dict, not a tensor of floating-point numbers"),
        (torch.ones(2, dtype=torch.int64), "the model returns a torch.int64, not"),
    ],
)
def test_what_is_no_output_is_said(value: Any, said: str) -> None:
    model = Returning(value)
    with watched(model) as seen:
        model()
    found, why = predictions(seen, outputs())
    assert found is None
    assert str(why).startswith(said)


def test_a_model_that_was_not_called() -> None:
    assert predictions(outputs(), outputs()) == (None, "evaluate did not call the model")


def test_the_hook_copies_and_leaves_with_the_block() -> None:
    value = torch.ones(2, 2)
    model = Returning(value)

    def failing() -> None:
        model()
        value.zero_()
        raise ValueError("planted")

    with watched(model) as seen, pytest.raises(ValueError, match="planted"):
        failing()
    model()
    assert [x.tolist() for x in seen.tensors] == [[[1.0, 1.0], [1.0, 1.0]]]
