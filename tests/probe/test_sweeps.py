"""What one call's bits depend on beside its inputs; each with an op that is known to, planted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from nondet_probe.env import deterministic_algorithms, thread_count
from nondet_probe.env.host_memory import PATTERNS, filled_allocations
from nondet_probe.probe import sweeps
from nondet_probe.probe.census import Census
from nondet_probe.probe.plan import plan_of
from nondet_probe.probe.replay import Call
from nondet_probe.probe.sweeps import (
    changes_with_batch,
    changes_with_threads,
    reads_unwritten,
    settles,
)
from nondet_probe.probe.watch import Rerun

aten = torch.ops.aten


def call(op: Any, *args: Any, **kwargs: Any) -> Call:
    return Call(op, plan_of(op), args, kwargs)


settled: list[bool] = []
turns = itertools.count()


@contextmanager
def settling() -> Iterator[None]:
    settled.append(True)
    yield
    settled.clear()


@torch.library.custom_op("sweep_test::by_threads", mutates_args=())
def by_threads(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if settled else x + torch.get_num_threads()


@torch.library.custom_op("sweep_test::careless", mutates_args=())
def careless(x: torch.Tensor) -> torch.Tensor:
    """Reads memory that nobody wrote."""
    return x + torch.empty_like(x)


@torch.library.custom_op("sweep_test::wild", mutates_args=())
def wild(x: torch.Tensor) -> torch.Tensor:
    """Another result in every execution, of which no switch is the cause."""
    return x + next(turns)


@torch.library.custom_op("sweep_test::careful", mutates_args=())
def careful(x: torch.Tensor) -> torch.Tensor:
    room = torch.empty_like(x)
    room.copy_(x)
    return room


def test_new_memory_holds_the_pattern_while_asked_to() -> None:
    for pattern in PATTERNS:
        with filled_allocations(pattern) as filled:
            assert filled
            for size in (4000, 50_000, 1_000_000):
                assert bool((torch.empty(size, dtype=torch.uint8) == pattern).all())
    x = torch.empty(4000, dtype=torch.uint8)
    assert not bool((x == PATTERNS[1]).all())


def test_where_torch_fills_it_is_told_that_the_pattern_does_not_hold() -> None:
    with deterministic_algorithms(True, fill=True), filled_allocations(PATTERNS[0]) as filled:
        assert not filled


@pytest.mark.parametrize("fill", [False, True])
def test_reading_unwritten_memory(fill: bool) -> None:
    with deterministic_algorithms(fill, fill=fill):
        assert reads_unwritten(call(torch.ops.sweep_test.careless.default, torch.ones(500))) is True
        assert reads_unwritten(call(torch.ops.sweep_test.careful.default, torch.ones(500))) is False
    assert reads_unwritten(call(aten.neg.default, torch.ones(3, device="meta"))) is None


def test_threads() -> None:
    changing = call(torch.ops.sweep_test.by_threads.default, torch.ones(3))
    with thread_count(2):
        first = changing.again()
        assert changes_with_threads(changing, first, [1, 2, 3]) == [1, 3]
        steady = call(aten.neg.default, torch.ones(3))
        assert changes_with_threads(steady, steady.again(), [1, 2, 3]) == []
        assert torch.get_num_threads() == 2
        assert settles(changing, lambda: thread_count(1), []) is True
        assert settles(changing, lambda: deterministic_algorithms(True), [1, 2]) is False

        def refuses() -> Any:
            raise RuntimeError("no deterministic kernel")

        assert settles(steady, refuses, []) is False


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "changes"),
    [
        (aten.mul.Tensor, (torch.rand(9, 3), 2.0), {}, False),
        (aten.add.Tensor, (torch.rand(9, 3), torch.rand(3)), {}, False),
        (aten._softmax.default, (torch.rand(9, 3), 1, False), {}, False),
        (aten._softmax.default, (torch.rand(9, 3), 0, False), {}, None),  # over the batch
        (aten.sum.dim_IntList, (torch.rand(9, 3), [-1]), {}, False),
        (aten.sum.dim_IntList, (torch.rand(9, 3), [-2]), {}, None),
        (aten.sum.dim_IntList, (torch.rand(9, 3), None), {}, None),
        (aten.native_layer_norm.default, (torch.rand(9, 3), [3], None, None, 1e-5), {}, False),
        (aten.native_layer_norm.default, (torch.rand(9, 3), [9, 3], None, None, 1e-5), {}, None),
        (aten.bernoulli.p, (torch.rand(9, 3), 0.5), {}, None),  # draws
        (aten.add_.Tensor, (torch.rand(9, 3), 1), {}, None),  # writes
        (aten.neg.default, (torch.rand(1, 3),), {}, None),  # one row
        (aten.nonzero.default, (torch.rand(9, 3),), {}, None),  # no batch is known
        (aten.addmm.default, (torch.rand(9, 4), torch.rand(9, 3), torch.rand(3, 4)), {}, None),
    ],
)
def test_the_batch(op: Any, args: tuple[Any, ...], kwargs: Any, changes: bool | None) -> None:
    assert changes_with_batch(call(op, *args, **kwargs)) is changes


def test_a_row_that_changes_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.library.custom_op("sweep_test::by_batch", mutates_args=())
    def by_batch(input: torch.Tensor) -> torch.Tensor:
        return input + input.shape[0]

    op = torch.ops.sweep_test.by_batch.default
    monkeypatch.setitem(sweeps._ROWS, str(op), ("input",))
    # What is from outside of ATen is taken to draw; this one does not.
    plan = replace(plan_of(op), draws=False)
    assert changes_with_batch(Call(op, plan, (torch.ones(4, 2),), {})) is True


def test_the_census_of_a_run() -> None:
    census = Census([1, 2], {"no switch": lambda: thread_count(1), "settling": settling})
    with thread_count(2), Rerun(census=census) as watch:
        before = torch.get_rng_state()
        torch.ops.sweep_test.by_threads(torch.ones(5))
        torch.ops.sweep_test.careless(torch.ones(500))
        torch.ops.sweep_test.wild(torch.ones(5))
        for _ in range(3):
            torch.rand(4)
        after = torch.get_rng_state()
    torch.set_rng_state(before)
    for _ in range(3):
        torch.rand(4)
    assert torch.equal(torch.get_rng_state(), after)
    rows = {row.op: row for row in census.rows()}
    threads = rows["sweep_test.by_threads.default"]
    assert threads.repeatable
    assert threads.other_threads == [1]
    assert threads.switch == "settling"
    # What new memory holds is the only cause of its differing.
    assert not rows["sweep_test.careless.default"].repeatable
    assert rows["sweep_test.careless.default"].unwritten is True
    assert rows["sweep_test.wild.default"].unwritten is None
    assert rows["aten.rand.default"].calls == 3
    assert rows["aten.rand.default"].repeatable
    assert watch.record().coverage.not_covered == {}
