"""The price list: what it measures is right where the answer is known, and offences show."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from planted_op import PROMISES, plant
from torch import Tensor

from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.metrics import MEASURES
from nondet_probe.ops import ops
from nondet_probe.probe.cases import CASES
from nondet_probe.probe.pricelist import Request, price_list
from nondet_probe.probe.pricelist_outcome import Outcomes
from nondet_probe.records.figures import Row
from nondet_probe.records.prices import broken_promises

REPEATS = 7  # odd, so that a median is a value
N = 64


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    plant(monkeypatch)
    request = Request(["planted"], [N], [torch.float32], [1, 2], REPEATS)
    return [row for rows in price_list(request, MEASURES) for row in rows]


def figure(rows: Sequence[Row], provider: str, metric: str, threads: int = 1) -> Row:
    (found,) = [
        row
        for row in rows
        if (row.provider, row.metric, row.threads) == (provider, metric, threads)
    ]
    return found


def median(rows: Sequence[Row], provider: str, metric: str, threads: int = 1) -> float:
    spread = figure(rows, provider, metric, threads).spread
    assert spread is not None
    return spread.median


def test_a_result_that_differs_is_counted(measured: list[Row]) -> None:
    for name in ("free", "wobbling"):
        assert median(measured, name, "distinct results") == 2
        assert median(measured, name, "V_c") == 1 / N
        # The first element is 2.0 or its successor, so the one differing term is 2^-22 / 2.
        assert median(measured, name, "V_ermv") in (2.0**-23 / N, 2.0**-23 / (1 + 2.0**-23) / N)
        assert median(measured, name, "largest error") <= 1
    for name in ("torch", "threaded", "steady", "exact"):
        assert median(measured, name, "distinct results") == 1
        assert median(measured, name, "V_c") == median(measured, name, "V_ermv") == 0


def test_errors_are_against_exact(measured: list[Row]) -> None:
    assert median(measured, "exact", "largest error") == 0
    assert median(measured, "steady", "largest error") == 2
    assert median(measured, "threaded", "largest error", 1) == 0
    assert median(measured, "threaded", "largest error", 2) == 1


def test_thread_counts_are_compared(measured: list[Row]) -> None:
    across = "distinct results over thread counts"
    assert median(measured, "threaded", across, 2) == 2
    assert median(measured, "exact", across, 2) == 1


def test_broken_promises_are_found(measured: list[Row]) -> None:
    broken = {(row.provider, row.metric) for row in broken_promises(measured)}
    assert broken == {
        ("wobbling", "distinct results"),
        ("threaded", "distinct results over thread counts"),
        ("failing", "time"),
    }


def test_what_cannot_be_measured_says_why(measured: list[Row]) -> None:
    reasons = {
        "failing": "raises ArithmeticError: the planted failure",
        "slow": "measured up to n = 10 only",
        "doubles": "takes float64",
        "torch deterministic": "raises RuntimeError: planted does not have a deterministic",
    }
    for name, reason in reasons.items():
        row = figure(measured, name, "time")
        assert row.spread is None
        assert row.note.startswith(reason)
    row = figure(measured, "exact", "ratio to torch deterministic")
    assert row.spread is None
    assert row.note.startswith("raises RuntimeError")


def test_every_figure_is_there_once(measured: list[Row]) -> None:
    keys = [(row.provider, row.threads, row.metric) for row in measured]
    assert len(keys) == len(set(keys))
    found = {row.metric for row in measured if row.provider == "exact" and row.threads == 1}
    assert found == {
        "time",
        "rate",
        "share of read stream",
        "ratio to torch",
        "ratio to torch deterministic",
        "extra memory",
        "distinct results",
        "largest error",
        "V_ermv",
        "V_c",
    }
    guarantees = {row.provider: row.guarantee for row in measured}
    assert guarantees["torch"] == guarantees["read stream"] == ""
    assert {name: guarantees[name] for name in PROMISES} == {
        name: str(promise) for name, promise in PROMISES.items()
    }


def test_rates_are_of_the_bytes_moved(measured: list[Row]) -> None:
    rate, time = median(measured, "torch", "rate"), median(measured, "torch", "time")
    moved = 2 * 4 * N  # read once, written once
    assert abs(rate * 1e9 * time / moved - 1) < 1e-9


def test_switches_and_threads_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    threads = torch.get_num_threads()
    drawn = torch.random.get_rng_state()
    rows = price_list(Request(["planted"], [3], [torch.float64], [threads + 1], 2), MEASURES)
    next(rows)
    rows.close()
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert bool((torch.random.get_rng_state() == drawn).all())


def test_deterministic_mode_is_on_while_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    def slow_if_deterministic(x: Tensor) -> Tensor:
        if torch.are_deterministic_algorithms_enabled():
            time.sleep(0.005)
        return x * 2

    case = replace(CASES["planted"][0], theirs=slow_if_deterministic)
    monkeypatch.setitem(CASES, "planted", [case])
    request = Request(["planted"], [N], [torch.float32], [1], 3)
    rows = [row for some in price_list(request, MEASURES) for row in some]
    assert median(rows, "torch deterministic", "time") >= 0.005
    assert median(rows, "torch deterministic", "ratio to torch") < 1
    assert median(rows, "torch", "ratio to torch deterministic") > 1


def test_rows_come_setting_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    told: list[tuple[str, int, int]] = []
    request = Request(["planted"], [2, 3], [torch.float32], [1], 2)
    batches = list(price_list(request, MEASURES, lambda *what: told.append(what)))
    sizes = [{row.n for row in rows} for rows in batches if rows]
    assert sizes == [{2}, {3}]
    assert [done for _, done, _ in told] == [0, 1, 2]
    assert told[0][0] == "planted float32 n=2, 1 threads"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ops": ["summ"]}, "did you mean 'sum'"),
        ({"ops": []}, "nothing to measure"),
        ({"sizes": [0]}, "at least 1 element"),
        ({"sizes": [2**45]}, "GB of memory"),
        ({"threads": [0]}, "at least 1"),
        ({"repeats": 1}, "at least 2"),
    ],
)
def test_bad_requests(change: dict[str, object], message: str) -> None:
    good = {
        "ops": ["sum"],
        "sizes": [10],
        "dtypes": [torch.float32],
        "threads": [1],
        "repeats": 2,
    }
    Request(**good)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        Request(**{**good, **change})  # type: ignore[arg-type]
    assert "sum" in ops()
    assert issubclass(UnknownNameError, UsageError)


def test_outcomes_of_several_tensors() -> None:
    first = (torch.tensor([1.0, 2.0]), torch.tensor([4.0]))
    other = (torch.tensor([1.0, 2.0]), torch.tensor([8.0]))
    found = Outcomes(first, first, MEASURES)
    assert found.distinct == 1
    assert found.measured == {"V_ermv": 0.0, "V_c": 0.0}  # V_s is of single numbers
    found.see(other)
    found.see(other)
    assert found.distinct == 2
    assert found.measured == {"V_ermv": 1 / 3, "V_c": 1 / 3}
    assert found.max_ulp == 2**23
    assert Outcomes(first, None, MEASURES).max_ulp is None


def test_outcomes_keep_the_value_largest_in_magnitude() -> None:
    found = Outcomes((torch.tensor(4.0),), None, MEASURES)
    for value in (5.0, 2.0, 4.0, 3.0):
        found.see((torch.tensor(value),))
    assert found.measured["V_s"] == 0.5
    found.see((torch.tensor(7.0),))
    assert found.measured["V_s"] == -0.75
