"""What `make gpu` measures: every bound gets its figure or a reason. With small inputs on the
emulated grid, and on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _gpu_cases import Case, cases
from _gpu_goals import COPY, GOALS
from gpu_measure import measured, synchronisations
from places import Place

from nondet_probe.probe.meters import CpuMeter, Meter, meter_of
from nondet_probe.records.figures import Row

SIZES = {"16 kB": 1 << 14}
NO_CUB = "there is no CUB here"


@pytest.fixture
def meter(place: Place) -> Meter:
    return CpuMeter() if place.device.type == "cpu" else meter_of("cuda")


def every_case(place: Place) -> Iterator[tuple[str, Case]]:
    for name, size, make in cases(place.device, SIZES, NO_CUB):
        assert size == "16 kB"
        yield name, make()


def test_every_bound_has_its_figure_or_a_reason(place: Place, meter: Meter) -> None:
    rows: list[Row] = []
    for name, case in every_case(place):
        assert case.op in name
        rows += measured(case, "16 kB", meter, rounds=3)
    for goal in GOALS:
        wanted = (goal.op, goal.dtype, goal.provider, goal.metric)
        (row,) = [one for one in rows if (one.op, one.dtype, one.provider, one.metric) == wanted]
        if "CUB" in goal.other:
            assert (row.spread, row.note) == (None, f"16 kB: {NO_CUB}")
        elif goal.op == "attention backward" and place.device.type == "cpu":
            assert row.spread is None
            assert "backend 'triton' takes tensors on cuda" in row.note
        else:
            assert row.spread is not None, row
            assert row.note == "16 kB"


def test_ratios_are_of_what_they_say(place: Place, meter: Meter) -> None:
    """With a meter by which call number k takes k milliseconds."""

    class Counted(CpuMeter):
        def seconds(self, call: object) -> float:
            return 1e-3 * (1 + list(case.calls.values()).index(call))  # type: ignore[arg-type]

    case = next(case for name, case in every_case(place) if name == "sum float32")
    rows = {(row.provider, row.metric): row for row in measured(case, "16 kB", Counted(), 3)}
    place_of = {name: 1 + number for number, name in enumerate(case.calls)}

    def median(provider: str, metric: str) -> float:
        spread = rows[provider, metric].spread
        assert spread is not None
        return spread.median

    assert place_of[COPY] == 1
    assert median("exact", "time") == 1e-3 * place_of["exact"]
    assert abs(median(COPY, "rate") - 2 * (1 << 14) / 1e9 / 1e-3) < 1e-12
    by_time = place_of["two_pass"] / place_of["exact"]
    assert abs(median("exact", "ratio to two_pass") - by_time) < 1e-12
    by_rate = 0.5 * place_of[COPY] / place_of["two_pass"]
    assert abs(median("two_pass", f"rate ratio to {COPY}") - by_rate) < 1e-12


def test_long_calls_have_fewer_rounds(place: Place) -> None:
    case = next(case for name, case in every_case(place) if name == "sum float32")

    class Slow(CpuMeter):
        def seconds(self, call: object) -> float:
            return 0.5

    rounds = {row.spread.rounds for row in measured(case, "16 kB", Slow(), 15) if row.spread}
    assert rounds == {3}


def test_a_call_that_fails_has_a_row_that_says_so(place: Place, meter: Meter) -> None:
    case = next(case for name, case in every_case(place) if name == "sum float32")

    def fails() -> None:
        raise RuntimeError("the planted failure\nand more")

    case.calls["two_pass"] = fails
    rows = {(row.provider, row.metric): row for row in measured(case, "16 kB", meter, 3)}
    why = "16 kB: RuntimeError: the planted failure"
    assert rows["two_pass", "time"].note == rows["exact", "ratio to two_pass"].note == why
    assert rows["exact", "ratio to two_pass"].spread is None
    assert ("two_pass", "rate") not in rows


@pytest.mark.gpu
def test_digests_wait_once() -> None:
    import torch

    spread = synchronisations(torch.device("cuda", 0)).spread
    assert spread is not None
    assert spread.median == 1
