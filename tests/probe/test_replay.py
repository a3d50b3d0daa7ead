from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from nondet_probe.probe.plan import plan_of
from nondet_probe.probe.replay import Call, Difference, NotComparableError, difference, results

aten = torch.ops.aten
NAN = float("nan")


def call(op: Any, *args: Any, **kwargs: Any) -> Call:
    return Call(op, plan_of(op), args, kwargs)


def test_an_op_in_place_starts_from_what_was_there_before_it_ran() -> None:
    x = torch.ones(3)
    again = call(aten.add_.Tensor, x, 1)
    x.add_(1)
    for _ in range(3):
        (found,) = again.again()
        assert torch.equal(found, torch.full((3,), 2.0))
    assert torch.equal(x, torch.full((3,), 2.0))


def test_operands_that_share_memory_with_a_written_one_are_copied_too() -> None:
    buffer = torch.arange(4.0)
    left, right = buffer[:2], buffer[2:]
    again = call(aten._foreach_add_.List, [left, right], [right, left])
    torch._foreach_add_([left, right], [right, left])  # the second sum reads the first
    for _ in range(2):
        assert difference([left, right], again.again()) is None


def test_an_op_on_itself() -> None:
    x = torch.full((3,), 3.0)
    again = call(aten.mul_.Tensor, x, x)
    x.mul_(x)
    assert torch.equal(again.again()[0], torch.full((3,), 9.0))


def test_out_operands_and_lists_of_operands_are_results() -> None:
    a, out = torch.ones(2), torch.zeros(2)
    again = call(aten.add.out, a, a, out=out)
    torch.add(a, a, out=out)
    assert [t.tolist() for t in again.again()] == [[2.0, 2.0]]
    parameters = [torch.ones(2), torch.ones(3)]
    again = call(aten._foreach_mul_.Scalar, parameters, 2.0)
    torch._foreach_mul_(parameters, 2.0)
    found = again.again()
    assert [t.tolist() for t in found] == [[2.0] * 2, [2.0] * 3]
    assert difference(results(again.plan, again.args, {}, None), found) is None


def test_random_ops_draw_the_same_numbers_again() -> None:
    x = torch.zeros(100)
    again = call(aten.bernoulli_.float, x, 0.5)
    x.bernoulli_(0.5)
    assert difference([x], again.again()) is None
    generator = torch.Generator().manual_seed(3)
    again = call(aten.rand.generator, [5], generator=generator)
    first = torch.rand(5, generator=generator)
    assert difference([first], again.again()) is None


def test_a_kept_call_does_not_need_its_operands_any_more() -> None:
    x, y = torch.ones(3), torch.full((3,), 2.0)
    again = call(aten.add_.Tensor, x, y)
    x.add_(y)
    kept = again.kept()
    x.zero_()
    y.zero_()
    found, seconds = kept.timed()
    assert torch.equal(found[0], torch.full((3,), 3.0))
    assert seconds > 0
    assert torch.equal(kept.again()[0], torch.full((3,), 3.0))
    assert kept.nbytes == 24
    assert kept.shapes == ["float32[3]", "float32[3]"]


def test_a_kept_random_call_keeps_the_state_of_its_stream() -> None:
    x = torch.zeros(50)
    again = call(aten.normal_.default, x)
    x.normal_()
    kept = again.kept()
    torch.rand(7)
    assert difference([x], kept.again()) is None


def test_equal_bits_are_no_difference() -> None:
    x = torch.tensor([NAN, -0.0, math.inf])
    assert difference([x, None, True, 3], [x.clone(), None, True, 3]) is None
    assert difference([NAN], [NAN]) is None


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (torch.zeros(3), torch.tensor([0.0, -0.0, 0.0]), Difference(3, 1, 1)),
        (torch.zeros(2), torch.tensor([0.0, NAN]), Difference(2, 1, None)),
        (torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64), (2, 2, None)),
        (torch.zeros(2), torch.zeros(3), (3, 3, None)),
        (1.0, math.nextafter(1.0, 2.0), (1, 1, 1)),
        (0.0, -0.0, (1, 1, 1)),
        (0.0, NAN, (1, 1, None)),
        (1j, 1j + 1, (1, 1, None)),
        (True, False, (1, 1, None)),
        (None, torch.zeros(1), (1, 1, None)),
    ],
    ids=str,
)
def test_differences(one: Any, other: Any, found: Any) -> None:
    assert difference([one], [other]) == found


def test_the_result_that_differs_most_is_told() -> None:
    a, b = torch.zeros(9), torch.zeros(4)
    c = a.clone()
    c[0] = 1
    assert difference([a, b], [c, b + 1]) == Difference(4, 4, 0x3F800000)


def test_what_has_no_bits_is_not_compared() -> None:
    with pytest.raises(NotComparableError, match="object"):
        difference([object()], [object()])
    with pytest.raises(NotComparableError, match="sparse_coo"):
        difference([torch.ones(2).to_sparse()], [torch.ones(2).to_sparse()])
