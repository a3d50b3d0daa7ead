"""Kernels that pass by the dispatcher are told, not passed over in silence."""

from __future__ import annotations

import offences
import torch

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


def test_its_node_is_not_asked_for_on_a_view() -> None:
    """A view written in place gets another node when asked, so it is not asked."""
    x = torch.ones(4, requires_grad=True)
    with Rerun(2) as watch:
        y = (x * 1)[:2]
        y.mul_(2)
        y.sum().backward()
    assert watch.record().coverage.not_covered == {}
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0, 0.0, 0.0]
