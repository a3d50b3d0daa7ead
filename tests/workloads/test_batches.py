from __future__ import annotations

from itertools import islice

import pytest
import torch

from nondet_probe.env.rng import RngState
from nondet_probe.workloads._batches import (
    Restartable,
    accuracy,
    classification_loss,
    shuffled,
    stream,
)


def test_streams_of_one_seed_are_apart() -> None:
    draws = {
        purpose: tuple(torch.rand(4, generator=stream(0, purpose)).tolist())
        for purpose in ("split", "order", "augmentation")
    }
    draws["global"] = tuple(torch.rand(4, generator=torch.Generator().manual_seed(0)).tolist())
    assert len(set(draws.values())) == len(draws)
    assert torch.equal(
        torch.rand(4, generator=stream(3, "order")), torch.rand(4, generator=stream(3, "order"))
    )
    assert not torch.equal(
        torch.rand(4, generator=stream(3, "order")), torch.rand(4, generator=stream(4, "order"))
    )


def test_epochs_are_whole_and_differently_ordered() -> None:
    items = torch.arange(100, 123)
    pieces = list(islice(shuffled(items, 5, seed=0), 12))  # 23 items: 4 pieces an epoch, 3 epochs
    assert all(piece.shape == (5,) for piece in pieces)
    epochs = [torch.cat(pieces[first : first + 4]) for first in (0, 4, 8)]
    for epoch in epochs:
        assert len(epoch.unique()) == 20  # no item twice in an epoch
        assert set(epoch.tolist()) <= set(items.tolist())
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])


def test_order_draws_from_no_global_stream() -> None:
    before = RngState.capture()
    list(islice(shuffled(torch.arange(10), 3, seed=0), 9))
    assert RngState.capture().same_as(before)
    torch.randperm(3)  # the offence this test is there to see
    assert not RngState.capture().same_as(before)


def test_restartable_begins_anew() -> None:
    batches = Restartable(lambda: ((piece,) for piece in shuffled(torch.arange(9), 3, seed=1)))
    first = [batch[0].tolist() for batch in islice(batches, 5)]
    assert [batch[0].tolist() for batch in islice(batches, 5)] == first
    running = iter(batches)
    next(running)
    assert next(iter(batches))[0].tolist() == first[0]
    assert next(running)[0].tolist() == first[1]


def test_loss_and_accuracy_by_hand() -> None:
    model = torch.nn.Identity()
    logits = torch.tensor([[0.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 1])
    expected = (torch.logsumexp(logits, 1) - logits[torch.arange(3), labels]).mean()
    assert float(classification_loss(model, (logits, labels))) == pytest.approx(float(expected))
    batches = [(logits[:2], labels[:2]), (logits[2:], labels[2:])]
    assert accuracy(model, batches) == {"accuracy": 2 / 3}


def test_accuracy_puts_the_mode_back_even_when_the_model_raises() -> None:
    class Raises(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            raise ZeroDivisionError

    for training in (True, False):
        model = Raises().train(training)
        with pytest.raises(ZeroDivisionError):
            accuracy(model, [(torch.zeros(1), torch.zeros(1))])
        assert model.training is training
