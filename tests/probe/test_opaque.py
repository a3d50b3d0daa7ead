"""Kernels that pass by the dispatcher are told, not passed over in silence."""

from __future__ import annotations

import offences
import torch

from nondet_probe.env.torch_private import last_sequence_number
from nondet_probe.probe.rerun import Rerun


def test_a_function_with_a_foreign_kernel_is_named_once_a_call() -> None:
    x = torch.ones(3, requires_grad=True)
    with Rerun(2) as watch:
        for _ in range(2):
            y = offences.Numpy.apply(x)
            (y + y * 2).sum().backward()
    reason = "autograd Function Numpy: no op of its forward reached the probe"
    assert watch.record().coverage.not_covered == {reason: 2}


def test_a_function_of_visible_ops_is_not() -> None:
    x = torch.ones(3, requires_grad=True)
    with Rerun(2) as watch:
        y = offences.WobblyBackward.apply(x)
        (y * 2).sum()
    assert watch.record().coverage.not_covered == {}


def test_no_node_is_made_by_asking_for_one() -> None:
    """A view whose base was written gets a new node when asked for it: that would change the order
    in which gradients are added."""
    base = torch.ones(4, requires_grad=True) * 1
    view = base[:2]
    base.mul_(2)
    before = last_sequence_number()
    with Rerun(2) as watch, torch.no_grad():
        view.sum()
    assert watch.record().coverage.rerun == 1
    assert last_sequence_number() == before
    assert view.grad_fn is not None
    assert last_sequence_number() != before
