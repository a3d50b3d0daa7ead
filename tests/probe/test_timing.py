"""Calls beside each other: every round has all of them, warm-up is not kept, contexts not timed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from nondet_probe.probe.timing import interleave, rates, ratios, repeated
from nondet_probe.records.figures import Spread


def test_rounds_and_warm_up() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abcd"}
    times = interleave(calls, rounds=12, warmup=3)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abcd", 12)
    rounds = [order[i : i + 4] for i in range(0, len(order), 4)]
    assert len(rounds) == 15
    assert all(sorted(one) == list("abcd") for one in rounds)
    # No call follows the same one always, which a rotated order would give.
    followers = Counter(pair for one in rounds for pair in pairwise(one))
    assert len(followers) > 8


def test_contexts_are_entered_around_each_call_and_not_timed() -> None:
    inside: list[bool] = []
    state = {"on": False}

    @contextmanager
    def slow() -> Iterator[None]:
        time.sleep(0.01)
        state["on"] = True
        try:
            yield
        finally:
            state["on"] = False

    calls = {"a": lambda: inside.append(state["on"]), "b": lambda: inside.append(not state["on"])}
    times = interleave(calls, rounds=3, warmup=0, under={"a": slow})
    assert inside == [True] * 6
    assert max(times["a"]) < 0.01


def test_what_is_computed_from_seconds() -> None:
    assert rates([1.0, 2.0, 4.0], 8.0) == Spread(4.0, 3.0, 6.0, 3)
    assert ratios([2.0, 2.0, 2.0], [1.0, 2.0, 4.0]) == Spread(1.0, 0.75, 1.5, 3)
    with pytest.raises(ValueError, match="at least 2"):
        rates([1.0], 1.0)
    with pytest.raises(ValueError, match="argument 2"):
        ratios([1.0, 2.0], [1.0])


def test_repeated() -> None:
    made: list[int] = []
    repeated(lambda: made.append(1), 7)()
    assert len(made) == 7
