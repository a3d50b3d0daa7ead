"""What is said of a cause is what the executions showed, and nothing else."""

from __future__ import annotations

from typing import Any

import offences  # noqa: F401  # registers its ops
import pytest
import torch

from nondet_probe.bits import digest
from nondet_probe.env import thread_count
from nondet_probe.env.rng import RngState
from nondet_probe.probe.examine import EXECUTIONS, examine
from nondet_probe.probe.plan import plan_of
from nondet_probe.probe.replay import Call

aten = torch.ops.aten


def call(op: Any, *args: Any) -> Call:
    return Call(op, plan_of(op), args, {})


def test_atomics_that_race_are_named_with_the_element_and_the_fix_that_was_seen_to_work() -> None:
    index = torch.randint(0, 50, (2_000_000,))
    target = torch.zeros(50)
    with thread_count(2):
        cause = examine(
            call(aten.index_put_.default, target, [index], torch.randn(2_000_000), True), "backward"
        )
    assert cause.differing > 0
    assert cause.executions == EXECUTIONS
    assert cause.element is not None
    assert 0 <= cause.element < 50 == cause.elements
    assert cause.ulps is not None
    assert cause.ulps >= 1
    assert cause.text is not None
    assert cause.text.startswith("parallel float atomics at two or more threads")
    fixes = {fix.name: fix for fix in cause.tried}
    assert fixes["deterministic mode"].verified
    assert fixes["deterministic mode"].executions == EXECUTIONS
    assert not cause.missing
    assert torch.equal(target, torch.zeros(50)), "the training's own tensor was written"


def split_sum() -> torch.Tensor:
    """Numbers whose sum on one thread is not that on two; some have the same by chance."""
    for seed in range(100):
        x = torch.randn(1 << 20, generator=torch.Generator().manual_seed(seed))
        sums = []
        for count in (1, 2):
            with thread_count(count):
                sums.append(x.sum().item())
        if sums[0] != sums[1]:
            return x
    raise AssertionError("torch.sum does not depend on the number of threads")


def test_bits_that_depend_on_the_number_of_threads() -> None:
    x = split_sum()
    with thread_count(2):
        cause = examine(call(aten.sum.default, x), "forward")
    assert cause.differing == 0
    assert cause.text is not None
    assert "depend on the number of threads: 1 and 2" in cause.text
    assert (cause.element, cause.elements) == (0, 1)
    with thread_count(1):
        other = examine(call(aten.sum.default, x), "forward", threads=(1, 2))
    assert other.text is not None
    assert "2 and 1" in other.text


def test_nothing_is_claimed_of_an_op_that_repeats_itself() -> None:
    with thread_count(2):
        cause = examine(call(aten.add.Tensor, torch.randn(64), torch.randn(64)), "forward")
    assert (cause.differing, cause.text, cause.element) == (0, None, None)
    (missing,) = cause.missing
    assert "gave one set of bits" in missing


def test_an_op_that_differs_on_one_thread_too_is_not_blamed_on_threads() -> None:
    with thread_count(2):
        cause = examine(call(torch.ops.ndp_test.wobble.default, torch.randn(64)), "forward")
    assert cause.differing > 0
    assert cause.text is not None
    assert "with 2 threads and with one" in cause.text


def test_a_failure_and_results_that_have_no_bits_are_told() -> None:
    failed = examine(call(aten.mm.default, torch.randn(2, 3), torch.randn(4, 5)), "forward")
    assert "executing it again failed: RuntimeError" in failed.missing[0]


def test_random_streams_stay() -> None:
    before, x = RngState.capture(), torch.empty(1000)
    kept = digest(x)
    cause = examine(call(aten.uniform_.default, x), "forward")
    assert before.same_as(RngState.capture())
    assert digest(x) == kept
    assert cause.differing == 0


@pytest.mark.parametrize("count", [1, 2])
def test_the_thread_count_is_put_back(count: int) -> None:
    with thread_count(count):
        examine(call(aten.sum.default, torch.randn(1 << 20)), "forward", threads=(1, 3))
        assert torch.get_num_threads() == count
