"""How a recording begins and ends: what it installs is gone afterwards, whatever happened."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_trace import Memory, Recorded
from torch import nn
from torch.nn.modules import module as hooks
from torch.optim import optimizer as optimizer_hooks
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from trained import build, ending, train

import nondet_probe as ndp
from nondet_probe.errors import RecordError, UnknownNameError, UsageError
from nondet_probe.records.trace import LEVELS, SETUP
from nondet_probe.records.trace_reader import open_trace

BACKWARD = torch.autograd.backward


def installed() -> list[object]:
    """Everything of torch that a recording may have put something into."""
    return [
        *hooks._global_forward_hooks,
        *hooks._global_forward_pre_hooks,
        *hooks._global_backward_hooks,
        *hooks._global_backward_pre_hooks,
        *([hooks] if hooks._has_any_global_hook() else []),
        *optimizer_hooks._global_optimizer_pre_hooks,
        *optimizer_hooks._global_optimizer_post_hooks,
        *([torch.autograd.backward] if torch.autograd.backward is not BACKWARD else []),
        *range(torch._C._len_torch_dispatch_stack()),
    ]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("level", LEVELS)
def test_a_trace_on_disk_holds_the_steps(level: str, tmp_path: Path) -> None:
    made = build("convolutional", "sgd")
    assert installed() == []
    with ndp.record(tmp_path / "run", level=level, model=made[0]) as rec:
        losses = train(made)
        assert installed()
    assert installed() == []
    trace = open_trace(tmp_path / "run")
    assert (trace.meta.status, trace.meta.level, trace.meta.command) == ("complete", level, None)
    assert trace.meta.cost is not None
    assert trace.meta.cost.steps == 3
    assert 0 < trace.meta.cost.probe_seconds < trace.meta.cost.seconds
    values = [record.value for record in trace.records() if record.site.kind == "loss"]
    assert values == losses
    assert rec.meta.coverage.records == len(list(trace.records()))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no"), "failed"), (SystemExit(3), "complete")]
)
def test_an_exception_passes_and_nothing_is_left(
    level: str, error: BaseException, status: str, tmp_path: Path
) -> None:
    class Failing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise error

    with (
        pytest.raises(type(error)) as raised,
        ndp.record(tmp_path / "run", level=level),
    ):
        Failing(2, 2)(torch.ones(2))
    assert raised.value is error
    assert installed() == []
    trace = open_trace(tmp_path / "run")
    assert trace.meta.status == status
    assert trace.meta.failure == ("ValueError: no" if status == "failed" else None)


def test_it_is_entered_once_and_others_may_be_inside(tmp_path: Path, recorded: Recorded) -> None:
    def nested(rec: Any) -> None:
        with pytest.raises(UsageError, match="entered before"):
            rec.__enter__()
        inner = recorded(lambda _: train(build("lstm", "sgd")), level="op")
        assert inner.of(kind="op")

    outer = recorded(nested, level="op")
    assert installed() == []
    assert outer.of(kind="module", step=1)
    ended = ndp.record(tmp_path / "run")
    with ended:
        pass
    with pytest.raises(UsageError, match="entered before"), ended:
        pass
    with pytest.raises(UsageError, match="inside of"):
        ended.step()


def test_a_folder_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError), ndp.record(tmp_path):
        pass
    assert installed() == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"level": "modul"}, "did you mean 'module'"),
        ({"names": "("}, "no regular expression"),
        ({"model": 3}, "torch.nn.Module"),
        ({"optimizer": nn.Linear(1, 1)}, "torch.optim.Optimizer"),
        ({"schedule": 5}, "torch.profiler.schedule"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_made(
    arguments: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        ndp.record(tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()
    assert isinstance(raised.value, UnknownNameError) is ("level" in arguments)


def test_who_replaced_backward_meanwhile_keeps_it(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.autograd, "backward", torch.autograd.backward)  # put back at the end
    calls = []

    def around(ours: Callable[..., Any]) -> Callable[..., Any]:
        def theirs(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return ours(*args, **kwargs)

        return theirs

    def run(rec: object) -> None:
        monkeypatch.setattr(torch.autograd, "backward", around(torch.autograd.backward))

    found = recorded(run, level="step")
    train(build("lstm", "sgd"), 1)
    assert calls
    assert found.of(kind="loss") == []


def test_a_forked_child_records_nothing_and_ends(recorded: Recorded) -> None:
    made = build("convolutional", "sgd")

    def run(rec: object) -> None:
        train(made, 1)
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            train(made, 2)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        train(made, 1)

    found = recorded(run, level="op")
    assert [loss.step for loss in found.of(kind="loss")] == [0, 1]


def test_what_other_threads_do_is_not_covered(recorded: Recorded) -> None:
    made, other = build("lstm", "sgd"), build("convolutional", "sgd")

    def run(rec: object) -> None:
        thread = threading.Thread(target=train, args=(other, 1))
        thread.start()
        thread.join()
        train(made, 1)

    found = recorded(run, level="op")
    assert "what other threads of the program ran" in found.meta.coverage.not_covered
    assert {record.site.module for record in found.of(kind="module")} >= {"Recurrent.lstm"}
    assert not [one for one in found.records if "Convolutional" in (one.site.module or "")]
    assert found.of(phase="state", step=0), "the program's own optimizer ended a step"
    assert found.of(phase="state", step=1) == []


def test_the_schedule_says_which_steps(recorded: Recorded) -> None:
    made = build("transformer", "adam")
    schedule = torch.profiler.schedule(skip_first=1, wait=0, warmup=1, active=2, repeat=1)
    found = recorded(lambda rec: train(made, 6), level="op", schedule=schedule)
    assert {record.step for record in found.records} == {2, 3}
    assert found.meta.cost is not None
    assert found.meta.cost.steps == 2
    everything = recorded(lambda rec: train(build("transformer", "adam"), 4), level="op")
    assert {record.step for record in everything.records} == {SETUP, 0, 1, 2, 3, 4}
    # What a step begins with is in it even where the step before was left out.
    assert [one[2:] for one in found.of(step=2)] == [one[2:] for one in everything.of(step=2)]


class _Counting(TorchDispatchMode):
    """A mode of the program's own."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_steps_left_out_run_without_a_mode_of_ours(recorded: Recorded) -> None:
    """Also where the program has modes of its own, below and above: they leave as they came."""
    made = build("transformer", "adam")
    below, above = _Counting(), _Counting()
    modes: list[list[Any]] = []

    def run(rec: Any) -> None:
        def step() -> None:
            train(made, 1)
            modes.append(_get_current_dispatch_mode_stack())

        for _ in range(3):
            step()  # after it: steps 1, 2 and 3 have begun
        with above:
            for _ in range(3):
                step()
        step()

    def schedule(step: int) -> Any:
        of = torch.profiler.ProfilerAction
        return of.RECORD if step in (2, 4, 6) else of.NONE

    with below:
        found = recorded(run, level="op", schedule=schedule)
        assert _get_current_dispatch_mode_stack() == [below]
    shape = [
        [{id(below): "below", id(above): "above"}.get(id(mode), "ours") for mode in stack]
        for stack in modes
    ]
    assert shape == [
        ["below"],
        ["below", "ours"],
        ["below"],
        ["below", "ours", "above"],
        ["below", "above"],
        ["below", "ours", "above"],
        ["below"],
    ]
    ops = {step: len(found.of(step=step, kind="op")) for step in range(8)}
    assert ops[2] == ops[4] == ops[6] > 0
    assert sum(ops.values()) == 3 * ops[2]
    assert _get_current_dispatch_mode_stack() == []


def test_names_choose_modules_and_parameters(recorded: Recorded) -> None:
    def of(level: str) -> Memory:
        made = build("transformer", "adam")
        return recorded(
            lambda rec: train(made, 1), level=level, model=made[0], names=r"linear1|^head"
        )

    for level in LEVELS:
        found = of(level)
        named = {record.site.module for record in found.records}
        assert named <= {"layer.linear1", "head", None}
        assert "head" in named
        assert len(found.of(kind="loss")) == 1
    assert all(record.site.module is not None for record in found.of(kind="op"))


def test_steps_without_an_optimizer_end_by_a_call(recorded: Recorded) -> None:
    model = nn.Linear(3, 1)

    def run(rec: Any) -> None:
        for _ in range(3):
            loss = model(torch.ones(3)).sum()
            rec.step(loss=loss)

    found = recorded(run, level="module", model=model)
    assert [record.step for record in found.of(kind="loss")] == [0, 1, 2]
    assert {record.step for record in found.of(phase="state")} == {0, 1, 2}


def test_steps_with_an_optimizer_are_not_counted_twice(recorded: Recorded) -> None:
    made = build("lstm", "sgd")

    def run(rec: Any) -> None:
        for _ in range(3):
            train(made, 1)
            rec.step(loss=7.0)

    found = recorded(run, level="step")
    assert [record.step for record in found.of(kind="loss")] == [0, 1, 2]
    assert 7.0 not in [record.value for record in found.records]


def test_a_trace_that_cannot_be_written_ends_the_recording_alone(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, plain = build("lstm", "sgd"), build("lstm", "sgd")
    expected = ending(plain, train(plain))
    found: list[list[str]] = []

    def full(self: Memory) -> None:
        if self.of(step=1):
            raise RecordError("the disk is full")

    def run(rec: object) -> None:
        monkeypatch.setattr(Memory, "flush", full)
        found.append(ending(made, train(made)))

    with pytest.raises(RecordError, match="disk is full"):
        recorded(run, level="op")
    assert found == [expected]
    assert installed() == []


def test_batches_of_other_loaders_are_told_of(recorded: Recorded) -> None:
    def caveats(loader: object) -> list[str]:
        return recorded(lambda rec: None, level="step", loader=loader).meta.caveats

    assert any("batches of list are not seen" in one for one in caveats([torch.ones(1)]))
    assert caveats(torch.utils.data.DataLoader(torch.ones(3))) == []
