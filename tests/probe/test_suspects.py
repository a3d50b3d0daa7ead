"""Most calls are executed twice; what is suspect, more often."""

from __future__ import annotations

import os
from typing import Any

import offences
import pytest
import torch

from nondet_probe.errors import UsageError
from nondet_probe.probe.declared import RAISES, SWITCHES, declared
from nondet_probe.probe.plan import plan_of
from nondet_probe.probe.replay import Call
from nondet_probe.probe.rerun import Rerun
from nondet_probe.probe.suspects import SUSPECT_K, Suspects, shape_class

aten = torch.ops.aten
X, I = torch.ones(4), torch.tensor([0, 1])  # noqa: E741


def call(op: Any, *args: Any, **kwargs: Any) -> Call:
    return Call(op, plan_of(op), args, kwargs)


@pytest.mark.parametrize(
    ("op", "args", "status"),
    [
        (aten.index_put_.default, (X, [I], X[:2], True), SWITCHES),
        (aten.index_put_.default, (X, [I], X[:2]), SWITCHES),
        (aten.put_.default, (X, I, X[:2], True), SWITCHES),
        (aten.put_.default, (X, I, X[:2]), RAISES),
        (aten.index_add.default, (X, 0, I, X[:2]), None),  # on CUDA only
        (aten.cumsum.default, (X, 0), None),
        (aten.add.Tensor, (X, X), None),
        (torch.ops.ndp_test.wobble.default, (X,), None),
    ],
)
def test_what_pytorch_declares(op: Any, args: tuple[Any, ...], status: str | None) -> None:
    assert declared(op, args, {}) == status


def test_what_is_declared_for_cuda() -> None:
    class Far(torch.Tensor):
        is_cuda = True

    far = torch.ones(4).as_subclass(Far)
    assert declared(aten.index_add.default, (far, 0, I, X[:2]), {}) == SWITCHES
    assert declared(aten.index_put_.default, (far, [I], X[:2], True), {}) is None
    assert declared(aten.cumsum.default, (far, 0), {}) == RAISES
    assert declared(aten.scatter_reduce_.two, (far, 0, I, X, "sum"), {}) == SWITCHES
    assert declared(aten.scatter_reduce_.two, (far, 0, I, X, "amax"), {}) is None
    assert declared(aten.scatter.src, (far, 0, I, X), {}) == SWITCHES
    assert declared(aten.scatter.value, (far, 0, I, 1.0), {}) is None


def test_every_declared_name_is_an_op() -> None:
    from nondet_probe.probe.declared import NAMES

    for name in NAMES:
        _, op, *overload = name.split(".")
        assert not overload or overload[0] in getattr(aten, op).overloads(), name
        assert getattr(aten, op).overloads(), name


def test_classes_round_sizes_up_and_keep_flags() -> None:
    one = call(aten.index_put_.default, torch.ones(5, 3), [I], torch.ones(2, 3), True)
    assert shape_class(one) == "float32[8, 4], int64[2], float32[2, 4], accumulate=True"
    assert shape_class(call(aten.neg.default, torch.ones(3, 4).t())) == "float32[4, 4] strided"
    assert shape_class(call(aten.sum.dim_IntList, torch.ones(0, 1), [0])).endswith("dim=[0]")
    many = call(aten._foreach_neg.default, [torch.ones(1)] * 1 + [torch.ones(2) for _ in range(9)])
    assert shape_class(many) == "float32[1], float32[2], float32[2], float32[2], and 6 more"


def test_declared_and_differing_calls_are_suspect() -> None:
    suspects = Suspects(2, 20)
    wobbly = call(torch.ops.ndp_test.wobble.default, torch.ones(5))
    larger = call(torch.ops.ndp_test.wobble.default, torch.ones(50))
    assert suspects.executions(call(aten.index_put_.default, X, [I], X[:2])) == 20
    assert suspects.executions(call(aten.add.Tensor, X, X)) == 2
    assert suspects.executions(wobbly) == 2
    assert suspects.differed(wobbly) == 20
    assert suspects.executions(wobbly) == 20
    assert suspects.executions(larger) == 2
    alike = Suspects(3, None)
    assert alike.executions(call(aten.index_put_.default, X, [I], X[:2])) == 3
    assert alike.differed(wobbly) == 3


def test_a_call_that_differs_is_executed_more_often_at_once() -> None:
    with Rerun() as watch:
        offences.wobble(torch.ones(2))
        torch.ones(3) + 1
    record = watch.record()
    (site,) = record.sites
    assert (record.k, record.suspect_k) == (2, SUSPECT_K)
    assert (site.executions, site.differing) == (SUSPECT_K, SUSPECT_K - 1)


def test_a_call_beyond_the_memory_budget_is_not_covered() -> None:
    small, large, given = torch.ones(10), torch.ones(1000), torch.ones(2000)
    with Rerun(2, memory=4096) as watch:
        small.add_(1)
        large.add_(1)  # its copies would take 8000 bytes
        given * 2  # its result takes 8000 bytes
        given.sum()  # reads much and keeps nothing
    coverage = watch.record().coverage
    assert coverage.not_covered == {"calls whose copies would take more than 0 MiB": 2}
    assert coverage.rerun == 2
    assert bool((large == 2).all())
    with pytest.raises(UsageError, match="memory=0"):
        Rerun(memory=0)


def test_a_forked_child_is_left_alone() -> None:
    with Rerun(2) as watch:
        torch.ones(3)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            offences.wobble(torch.ones(2))
            seen = watch._mode.coverage.seen
            os.write(write, bytes([seen]))
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 1) == bytes([1])
        os.close(read)
        os.close(write)
    assert watch.record().sites == []
