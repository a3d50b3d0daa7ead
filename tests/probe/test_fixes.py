"""Fixes are believed only after they were tried; a replacement op must compute the same."""

from __future__ import annotations

from typing import Any

import offences
import pytest
import torch

from nondet_probe.bits import bit_equal
from nondet_probe.env import thread_count
from nondet_probe.env.rng import RngState
from nondet_probe.env.switches import deterministic_algorithms
from nondet_probe.errors import UnknownNameError
from nondet_probe.probe.fixes import SWITCHES, fixes_of, under_fix
from nondet_probe.probe.plan import plan_of
from nondet_probe.probe.replay import Call
from nondet_probe.records import Fix

aten = torch.ops.aten


def call(op: Any, *args: Any, **kwargs: Any) -> Call:
    return Call(op, plan_of(op), args, kwargs)


def by_name(fixes: list[Fix]) -> dict[str, Fix]:
    return {fix.name: fix for fix in fixes}


def whole(*shape: int) -> torch.Tensor:
    """Whole numbers: sums of them are exact, so every order of adding gives the same bits."""
    return torch.randint(-9, 10, shape).float()


@pytest.mark.parametrize("name", ["", *SWITCHES])
def test_switches_are_put_back_also_after_an_exception(name: str) -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    inside = []

    def body() -> None:
        inside.append((torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()))
        raise KeyError

    with pytest.raises(KeyError), under_fix(name), under_fix(name):
        body()
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == before
    expected = {"": before, "deterministic mode": (True, before[1]), "one thread": (False, 1)}
    assert inside == [expected[name]]


def test_an_unknown_fix() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'one thread'"):
        under_fix("one thred")


INDEX = torch.tensor([[0, 3, -1], [3, 3, 0]])
ADDS = {
    "rows": (aten.index_put.default, whole(4, 5), [INDEX], whole(2, 3, 5), True),
    "in place": (aten.index_put_.default, whole(4, 5), [INDEX], whole(2, 3, 5), True),
    "inner": (aten._index_put_impl_.default, whole(4, 5), [INDEX], whole(2, 3, 5), True, True),
    "another dimension": (
        aten.index_put.default,
        whole(2, 4, 5),
        [None, INDEX],
        whole(2, 2, 3, 5),
        True,
    ),
    "broadcast values": (aten.index_put.default, whole(4, 5), [INDEX], whole(5), True),
    "int32": (aten.index_put.default, whole(4), [INDEX.int()], whole(2, 3), True),
    "put": (aten.put.default, whole(4, 5), INDEX, whole(2, 3), True),
    "put in place": (aten.put_.default, whole(4, 5), INDEX, whole(2, 3), True),
}


@pytest.mark.parametrize("name", ADDS)
def test_a_replacement_computes_the_same(name: str) -> None:
    one = call(*ADDS[name])
    kept = one.kept()
    expected = one.again()[0]
    (other,) = [r for r in replacements(one) if r.takes(*one.args, **one.kwargs)]
    found, _ = kept.timed(other.op)
    assert bit_equal(found[0], expected)


def replacements(one: Call) -> Any:
    from nondet_probe.probe import fixes

    return fixes._REPLACEMENTS[one.plan.name]


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.index_put.default, (whole(4), [INDEX], whole(2, 3))),
        (aten.index_put.default, (whole(4), [INDEX], whole(2, 3), False)),
        (aten.index_put.default, (whole(4, 4), [INDEX, INDEX], whole(2, 3), True)),
        (aten.index_put.default, (whole(4), [whole(4) > 0], torch.ones(()), True)),
        (aten.put.default, (whole(4), INDEX, whole(2, 3))),
        (aten.put.default, (whole(4, 5).t(), INDEX, whole(2, 3), True)),
    ],
)
def test_a_replacement_is_not_offered_where_it_does_something_else(op: Any, args: Any) -> None:
    one = call(op, *args)
    assert not any(r.takes(*args) for r in replacements(one))


def test_the_way_out_of_the_backward_of_a_lookup_computes_the_same() -> None:
    table = whole(6, 4)
    index = torch.tensor([[0, 5], [3, 3]])
    assert bit_equal(
        table.index_select(0, index.reshape(-1)).unflatten(0, index.shape), table[index]
    )


def test_every_fix_is_tried_and_timed() -> None:
    values, index = torch.randn(600, 4), torch.randint(0, 50, (600,))
    one = call(aten.index_put.default, torch.zeros(50, 4), [index], values, True)
    state = RngState.capture()
    with thread_count(2):
        fixes = by_name(fixes_of(one, "backward", 10))
    assert state.same_as(RngState.capture())
    assert list(fixes) == ["deterministic mode", "one thread", "index_add_"]
    for fix in fixes.values():
        assert fix.verified
        assert fix.executions == 10
        assert fix.error is None
        assert fix.spread is not None
        assert fix.ratio is not None
        assert 0 < fix.spread[0] <= fix.ratio <= fix.spread[1]
    assert "index_select" in fixes["index_add_"].how
    forward = by_name(fixes_of(one, "forward", 1))
    assert forward["index_add_"].how.startswith("x.index_add_(dim, ")


def test_a_fix_that_does_not_help_is_not_verified() -> None:
    fixes = fixes_of(call(torch.ops.ndp_test.wobble.default, torch.ones(3)), "forward")
    assert [fix.name for fix in fixes] == list(SWITCHES)[: len(fixes)]
    assert not any(fix.verified for fix in fixes)
    assert all(fix.error is None for fix in fixes)
    assert offences.wobble is not None


def test_a_fix_that_raises_is_told_with_its_error() -> None:
    one = call(aten.put.default, torch.zeros(4), torch.tensor([0, 0]), torch.ones(2), False)
    fix = by_name(fixes_of(one, "forward"))["deterministic mode"]
    assert not fix.verified
    assert fix.error is not None
    assert "put_ does not have a deterministic" in fix.error
    assert fix.ratio is None
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_switch_that_is_on_already_is_no_fix() -> None:
    one = call(aten.neg.default, torch.zeros(4))
    with deterministic_algorithms(True), thread_count(1):
        assert fixes_of(one, "forward") == []
    with deterministic_algorithms(True, warn_only=True), thread_count(1):
        assert [fix.name for fix in fixes_of(one, "forward")] == ["deterministic mode"]
