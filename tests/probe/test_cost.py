from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from probe_workloads import Factory, cross_entropy, endless, net, noisy

from nondet_probe.env import RngState, deterministic_algorithms, read_switches
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe import cost as module
from nondet_probe.probe.cost import ATTRIBUTED, cost
from nondet_probe.probe.unwritten import fill_needed
from nondet_probe.records.schema import CostRecord
from nondet_probe.workload import Workload

ARMS = ["default", "deterministic", "deterministic, no fill"]


@torch.library.custom_op("cost_test::slow", mutates_args=())
def slow(x: torch.Tensor) -> torch.Tensor:
    time.sleep(0.02)
    return x.clone()


pytestmark = pytest.mark.usefixtures("one_thread")


def switches() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def arm_now() -> str:
    on, fill = switches()
    return ARMS[0] if not on else ARMS[1] if fill else ARMS[2]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that cost reads: it stands still but for what a test adds."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_each_arm_runs_what_its_name_says() -> None:
    seen: list[str] = []
    record = cost(Factory(before=lambda *_: seen.append(arm_now())), steps=5)
    assert [arm.name for arm in record.arms] == ARMS
    assert [len(arm.seconds) for arm in record.arms] == [5, 5, 5]
    assert record.steps == 5
    assert record.threads == torch.get_num_threads()
    # A warm-up step, five more and those with every op timed, in rotating order.
    rounds = 6 + ATTRIBUTED
    turns = [ARMS[(turn + place) % 3] for turn in range(rounds) for place in range(3)]
    # Then, two steps each: two patterns in new memory, and torch's own fill.
    assert seen == turns + [ARMS[2]] * 4 + [ARMS[1]] * 2


def test_the_default_arm_is_not_deterministic_even_where_the_process_is() -> None:
    seen: set[str] = set()
    with deterministic_algorithms(True, fill=False):
        before = read_switches()
        cost(Factory(before=lambda *_: seen.add(arm_now())), steps=1)
        assert read_switches() == before
    assert seen == set(ARMS)


def test_a_workload_function_that_sets_the_switch_itself() -> None:
    seen: set[str] = set()

    def stubborn(seed: int) -> Workload:
        torch.use_deterministic_algorithms(True)
        return noisy(seed)

    before = read_switches()
    cost(Factory(stubborn, before=lambda *_: seen.add(arm_now())), steps=1)
    assert seen == set(ARMS)
    assert read_switches() == before


def test_ratios_are_of_the_same_step_and_their_middle(clock: list[float]) -> None:
    # Steps get slower and slower, as on a machine that is busy: 1 2 3 4 5, times the arm's factor.
    factors = {"default": 1.0, "deterministic": 3.0, "deterministic, no fill": 0.5}
    turns = dict.fromkeys(ARMS, 0)

    def work(*_: Any) -> None:
        turns[arm_now()] += 1
        clock[0] += max(turns[arm_now()] - 1, 100 * (turns[arm_now()] == 1)) * factors[arm_now()]

    record = cost(Factory(before=work), steps=5)
    default, deterministic, no_fill = record.arms
    assert default.seconds == [1, 2, 3, 4, 5]
    assert deterministic.seconds == [3, 6, 9, 12, 15]
    assert (default.ratio, deterministic.ratio, no_fill.ratio) == (1.0, 3.0, 0.5)
    assert deterministic.spread == (3.0, 3.0)


def test_the_spread_is_of_the_quartiles(clock: list[float]) -> None:
    turns = dict.fromkeys(ARMS, 0)

    def work(*_: Any) -> None:
        turns[arm_now()] += 1
        clock[0] += turns[arm_now()] if arm_now() == "deterministic" else 1.0

    record = cost(Factory(before=work), steps=5)
    assert record.arms[1].seconds == [2, 3, 4, 5, 6]
    assert (record.arms[1].ratio, record.arms[1].spread) == (4.0, (3.0, 5.0))


def test_drawing_the_batch_is_part_of_a_step(clock: list[float]) -> None:
    def factory(seed: int) -> Workload:
        def slow() -> Any:
            for batch in endless():
                clock[0] += 2.0
                yield batch

        return Workload(net(), None, slow(), cross_entropy)

    assert cost(factory, steps=2).arms[0].seconds == [2.0, 2.0]


def test_every_arm_is_a_run_of_its_own_with_its_own_streams() -> None:
    losses: dict[str, list[float]] = {name: [] for name in ARMS}

    def factory(seed: int) -> Workload:
        workload = noisy(seed)

        def loss(model: Any, batch: Any) -> torch.Tensor:
            value = cross_entropy(model, batch)
            losses[arm_now()].append(value.item())
            return value

        workload.loss = loss
        return workload

    cost(factory, seed=4, steps=3)
    alike = 4 + ATTRIBUTED  # what follows is the fill's
    assert losses[ARMS[0]] == losses[ARMS[1]][:alike] == losses[ARMS[2]][:alike]
    assert len(set(losses[ARMS[0]])) == alike


def test_an_op_without_a_deterministic_form_ends_its_arms_only() -> None:
    def put(workload: Workload, batch: Any) -> None:
        torch.zeros(4).put_(torch.tensor([0, 1]), torch.ones(2))

    before = read_switches()
    default, deterministic, no_fill = cost(Factory(before=put), steps=3).arms
    assert default.error is None
    assert len(default.seconds) == 3
    for arm in (deterministic, no_fill):
        assert arm.error is not None
        assert "step 0 failed: RuntimeError: put_" in arm.error
        assert "deterministic" in arm.error
        assert arm.seconds == []
        assert arm.ratio is None
        assert arm.spread is None
    assert read_switches() == before


def test_an_arm_that_fails_later_keeps_its_steps() -> None:
    turns = dict.fromkeys(ARMS, 0)

    def fail(*_: Any) -> None:
        turns[arm_now()] += 1
        if arm_now() == "deterministic" and turns[arm_now()] == 4:
            raise ValueError("planted")

    default, deterministic, no_fill = cost(Factory(before=fail), steps=5).arms
    assert len(deterministic.seconds) == 2
    assert deterministic.error == "step 3 failed: ValueError: planted"
    assert deterministic.ratio is not None
    assert len(default.seconds) == len(no_fill.seconds) == 5


def test_a_workload_that_fails_by_default_fails() -> None:
    turns = dict.fromkeys(ARMS, 0)

    def fail(*_: Any) -> None:
        turns[arm_now()] += 1
        if arm_now() == "default" and turns[arm_now()] == 4:
            raise ValueError("planted")

    torch.manual_seed(5)
    before, streams = read_switches(), RngState.capture()
    with pytest.raises(RunFailedError, match="step 3 failed: ValueError: planted") as caught:
        cost(Factory(before=fail), steps=5)
    partial = caught.value.partial
    assert isinstance(partial, CostRecord)
    assert partial.steps == 2
    assert partial.arms[1].ratio is not None
    assert read_switches() == before
    assert streams.same_as(RngState.capture())


def test_a_workload_that_cannot_be_built() -> None:
    def broken(seed: int) -> Workload:
        raise OSError("no data")

    with pytest.raises(RunFailedError, match="building the workload failed") as caught:
        cost(broken)
    assert caught.value.step is None
    assert caught.value.partial.steps == 0


def test_streams_are_put_back_and_bad_steps_refused() -> None:
    before = RngState.capture()
    cost(noisy, steps=1)
    assert before.same_as(RngState.capture())
    with pytest.raises(UsageError, match="steps=0: at least 1"):
        cost(noisy, steps=0)


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    cost(noisy, steps=2, progress=lambda *told: seen.append(told))
    rounds = 3 + ATTRIBUTED
    assert seen == [("cost of determinism", done, rounds) for done in range(1, rounds + 1)]


def test_further_arms_run_inside_their_own_context_without_determinism() -> None:
    inside: list[bool] = []
    where: list[tuple[bool, bool]] = []

    @contextmanager
    def own() -> Iterator[None]:
        inside.append(True)
        yield
        inside.clear()

    with deterministic_algorithms(True):
        record = cost(
            Factory(before=lambda *_: where.append((bool(inside), switches()[0]))),
            steps=2,
            further={"own": own},
        )
    assert [arm.name for arm in record.arms] == [*ARMS, "own"]
    assert record.arms[3].ratio is not None
    assert (True, False) in where
    assert (True, True) not in where
    with pytest.raises(UsageError, match="further arm 'default'"):
        cost(noisy, further={"default": own})


def test_the_time_of_each_op_by_arm() -> None:
    def work(*_: Any) -> None:
        if torch.are_deterministic_algorithms_enabled():
            slow(torch.ones(3))
        else:
            torch.ones(3).neg()

    record = cost(Factory(before=work), steps=1)
    first = record.ops[0]
    assert first.op == "cost_test.slow.default"
    assert first.calls == 1
    assert first.seconds["default"] == 0.0
    assert min(first.seconds["deterministic"], first.seconds["deterministic, no fill"]) >= 0.02
    ops = {op.op: op for op in record.ops}
    assert ops["aten.neg.default"].seconds["deterministic"] == 0.0
    assert ops["aten.addmm.default"].calls > 0


def test_a_fill_that_is_not_needed() -> None:
    record = cost(noisy, steps=1)
    assert record.fill_needed is False
    assert record.fill_reason == "with three contents of new memory the bits were the same"


def test_memory_that_nobody_wrote_is_noticed() -> None:
    def careless(seed: int) -> Workload:
        workload = noisy(seed)
        workload.loss = lambda model, batch: (
            cross_entropy(model, batch) + torch.empty(5000, dtype=torch.uint8)[4000].float()
        )
        return workload

    record = cost(careless, steps=1)
    assert record.fill_needed is True
    assert record.fill_reason == "the bits depend on what new memory holds (first: the loss)"


def test_a_run_that_fails_with_one_content_only_depends_on_it() -> None:
    def careless(seed: int) -> Workload:
        workload = noisy(seed)
        workload.loss = lambda model, batch: (
            cross_entropy(model, batch) + 0.0 * torch.empty(5000)[4000]  # NaN by torch's fill
        )
        return workload

    verdict = fill_needed(careless, 0, 1)
    assert verdict.needed is True
    assert "whether it fails" in verdict.why

    def failing(seed: int) -> Workload:
        workload = noisy(seed)
        workload.loss = lambda model, batch: cross_entropy(model, batch) * float("inf")
        return workload

    verdict = fill_needed(failing, 0, 1)
    assert verdict.needed is None
    assert verdict.why.startswith("not tested: the loss is inf")


def test_steps_that_do_not_repeat_themselves_tell_nothing_of_the_fill() -> None:
    turns = itertools.count(1)

    def restless(seed: int) -> Workload:
        workload = noisy(seed)
        workload.loss = lambda model, batch: cross_entropy(model, batch) * next(turns)
        return workload

    record = cost(restless, steps=1)
    assert record.fill_needed is None
    assert "do not repeat themselves" in record.fill_reason


def test_memory_that_cannot_be_filled_is_not_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nondet_probe.env.host_memory._holds", lambda *_: False)
    record = cost(noisy, steps=1)
    assert record.fill_needed is None
    assert "could not be controlled" in record.fill_reason
