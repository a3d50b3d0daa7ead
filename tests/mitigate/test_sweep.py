"""The sweep counts as measured what it measured: each thing that it cannot compare is left out by
name."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nondet_probe.mitigate import measured

# It is a program, and finds its cases beside it.
sys.path.insert(0, str(Path(__file__).parent))
import sweep

sys.path.pop(0)

VECTOR = 16


@pytest.fixture(autouse=True)
def _threads_and_draws_as_before() -> Iterator[None]:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.fixture
def mode() -> sweep.Compare:
    return sweep.Compare(time.monotonic() + 60)


def odd(n: int = 40_003) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(n)) + 0.5


@pytest.fixture(scope="module")
def library() -> Iterator[Any]:
    """Overloads that go wrong as one wishes."""
    made = torch.library.Library("sweep_test", "DEF")

    def define(schema: str, function: Any, *tags: torch.Tag) -> None:
        made.define(schema, tags=tags)
        made.impl(schema.split("(")[0], function, "CPU")

    def ends_differ(x: Tensor) -> Tensor:
        """As a vector loop does whose end is another function."""
        whole = len(x) // VECTOR * VECTOR
        return torch.cat([x[:whole] * 2, x[whole:] * 2.00001])

    def threads_differ(x: Tensor) -> Tensor:
        return x * (1 + torch.get_num_threads() / 1000)

    def fails_on_two(x: Tensor) -> Tensor:
        if torch.get_num_threads() == 2:
            raise ZeroDivisionError
        return x * 2

    def fails_on_pieces(x: Tensor) -> Tensor:
        if len(x) < 20_000:
            raise NotImplementedError
        return x * 2

    define("ends(Tensor x) -> Tensor", ends_differ, torch.Tag.pointwise)
    define("untagged_ends(Tensor x) -> Tensor", ends_differ)
    define("ends_(Tensor(a!) x) -> Tensor(a!)", lambda x: x.copy_(ends_differ(x)))
    define("twice_(Tensor(a!) x, Tensor y) -> Tensor(a!)", lambda x, y: x.add_(x).add_(y))
    define("threads(Tensor x) -> Tensor", threads_differ)
    define("fails(Tensor x) -> Tensor", fails_on_two)
    define("whole(Tensor x) -> Tensor", fails_on_pieces)
    define("whole_pointwise(Tensor x) -> Tensor", fails_on_pieces, torch.Tag.pointwise)
    yield torch.ops.sweep_test
    made._destroy()


def test_what_varies_is_seen(mode: sweep.Compare, library: Any) -> None:
    with mode:
        library.threads(odd())
        library.ends(odd())
        library.untagged_ends(odd())
        library.ends_(odd())
        library.threads(odd().bfloat16())
    found = {name: row for name, row in mode.found.items() if name.startswith("sweep_test")}
    assert found == {
        "sweep_test.threads.default": [2, 2, 1, 1, 0],
        "sweep_test.ends.default": [1, 1, 1, 0, 0],
        "sweep_test.untagged_ends.default": [1, 1, 1, 0, 0],
        "sweep_test.ends_.default": [1, 1, 1, 0, 0],
    }
    assert mode.examples["sweep_test.ends_.default"] == "float32[40003]"


def test_what_a_call_changes_itself_is_no_difference(mode: sweep.Compare, library: Any) -> None:
    x, y = odd(), odd() / 3
    expected = x + x + y
    with mode:
        library.twice_(x, y)
        x.add_(y).mul_(y).addcmul_(y, y).add_(1)
    assert torch.equal(x, (expected + y).mul_(y).addcmul_(y, y).add_(1))
    assert mode.found["sweep_test.twice_.default"] == [1, 1, 0, 0, 0]
    for name in ("mul_.Tensor", "addcmul_.default"):
        assert mode.found[f"aten.{name}"] == [1, 1, 0, 0, 0], name
    assert not mode.not_measured


def test_what_could_not_be_compared_is_told_and_never_steady(
    mode: sweep.Compare, library: Any
) -> None:
    with mode:
        library.fails(odd())
        library.whole_pointwise(odd())
        library.whole(odd())
        odd(9).to_sparse() * 2
    assert mode.not_measured["sweep_test.fails.default"] == {"2 threads: ZeroDivisionError": 1}
    ends = {"ends: NotImplementedError": 1}
    assert mode.not_measured["sweep_test.whole_pointwise.default"] == ends
    assert "operands not dense" in mode.not_measured["aten.mul.Tensor"]
    for name in ("sweep_test.fails.default", "sweep_test.whole_pointwise.default"):
        assert name not in mode.found
    # No elementwise overload: its threads were compared, and that there are no ends is told.
    assert mode.found["sweep_test.whole.default"] == [1, 1, 0, 0, 0]
    assert mode.not_measured["sweep_test.whole.default"] == ends


def test_time_and_size_have_their_end(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "TOO_LARGE", 1000)
    x, few = odd(), odd(99)
    late, small = sweep.Compare(time.monotonic() - 1), sweep.Compare(time.monotonic() + 60)
    with late:
        library.threads(x)
    with small:
        library.threads(x)
        few[:, None] * few
    assert late.not_measured["sweep_test.threads.default"] == {"out of time": 1}
    assert not late.found
    reasons = {"operands of 1000 elements and more": 1}
    assert small.not_measured["sweep_test.threads.default"] == reasons
    assert "aten.mul.Tensor" not in small.found
    assert "results of 4000 elements and more" in small.not_measured["aten.mul.Tensor"]


def test_the_table_is_one_of_this_sweep() -> None:
    """Written as the sweep writes it, by nobody's hand."""
    text = files("nondet_probe.mitigate").joinpath(measured.TABLE).read_text("utf-8")
    table = json.loads(text)
    assert text == sweep.lines(table)
    for version in table.values():
        assert {"threads", "cpu", "overloads", "not_measured", "cases_failed", "examples"} == set(
            version
        )
        for name, (calls, large, *varied) in version["overloads"].items():
            assert calls >= large, name
            assert calls >= sum(varied), name
            assert bool(sum(varied)) == (name in version["examples"])
        # Their operands, which the call changes, are no difference.
        assert not any(version["overloads"]["aten.addcmul_.default"][2:])
        assert not any(version["overloads"]["aten.add_.Scalar"][2:])
