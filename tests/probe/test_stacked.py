"""Stacked twins: the control holds bit for bit, a twin begins one flip apart, streams are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest
import torch
from probe_workloads import cross_entropy
from torch import nn

from nondet_probe.bits import bit_equal
from nondet_probe.env.rng import RngState, seed_all
from nondet_probe.errors import RunFailedError, UnknownNameError, UsageError
from nondet_probe.probe.distance import Distances
from nondet_probe.probe.drive import build, plain_run
from nondet_probe.probe.members import Members
from nondet_probe.probe.stacked import CONTROL, RUN, TWINS, StackedLockstep, StackedRun, stacked
from nondet_probe.probe.state import first_difference
from nondet_probe.records.fault import Fault
from nondet_probe.workload import Workload, WorkloadFactory

pytestmark = pytest.mark.usefixtures("one_thread")

Optimizers = Callable[[Any], torch.optim.Optimizer]


def mlp() -> nn.Module:
    # Widths that are no multiple of a vector: members begin at any place in one.
    return nn.Sequential(nn.Linear(6, 17), nn.ReLU(), nn.Dropout(0.3), nn.Linear(17, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 4, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(4, 3),
    )


def images(count: int = 10) -> list[tuple[torch.Tensor, torch.Tensor]]:
    own = torch.Generator().manual_seed(5)
    return [
        (torch.randn(24, 6, generator=own), torch.randint(0, 3, (24,), generator=own))
        for _ in range(count)
    ]


def of(
    make: Callable[[], nn.Module],
    optimizer: Optimizers = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    loss: Callable[[nn.Module, Any], torch.Tensor] = cross_entropy,
) -> WorkloadFactory:
    def factory(seed: int) -> Workload:
        model = make()
        return Workload(model, optimizer(model.parameters()), cycle(images()), loss)

    return factory


SETTINGS: dict[str, Optimizers] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True, foreach=True),
}


@pytest.mark.parametrize(
    ("name", "steps"), [("momentum", 300), ("adam", 300), ("nesterov", 30), ("amsgrad", 30)]
)
def test_the_control_holds(name: str, steps: int) -> None:
    seen = stacked(of(mlp, SETTINGS[name]), [("0.weight", 7, 20)] * 3, steps=steps)
    assert (seen.place, seen.differs, seen.no_growth) == (None, None, None)
    assert all(row[RUN].hex() == row[CONTROL].hex() for row in seen.losses)
    assert seen.losses[-1][TWINS] != seen.losses[-1][RUN]
    # Three twins of one change: where a member lies in the stack does not matter either.
    assert len({row.hex() for row in seen.losses[-1][TWINS:]}) == 1


def test_bits_that_depend_on_the_place_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of torch's fused AdamW do, which rounds otherwise beyond the last whole vector. Run
    and control lie side by side at the other end, and would agree."""
    update = Members.update

    def rounding_otherwise(members: Members) -> None:
        update(members)
        members.parameters["3.bias"].data[-1, -1] *= 1.5

    monkeypatch.setattr(Members, "update", rounding_otherwise)
    seen = stacked(of(mlp), [("0.weight", 7, 20)] * 3, steps=2)
    assert (seen.place, seen.differs) == ("0.weight", None)
    assert "depends on its place in the stack: 0.weight has" in str(seen.no_growth)


def test_the_control_of_a_cnn_holds() -> None:
    """With BatchNorm in training: each member has running figures of its own."""
    running: list[torch.Tensor] = []

    def look(step: int, members: Members) -> None:
        running.append(members.buffers["2.running_mean"].clone())
        assert members.buffers["2.num_batches_tracked"].tolist() == [step + 1] * 4

    seen = stacked(of(cnn), [("1.weight", 3, 22), ("8.bias", 0, 0)], steps=300, observe=look)
    assert (seen.differs, seen.no_growth) == (None, None)
    assert bit_equal(running[-1][RUN], running[-1][CONTROL])
    assert not bit_equal(running[-1][RUN], running[-1][TWINS])


def test_a_control_that_differs_is_told_and_gives_no_growth() -> None:
    offended: list[bool] = []

    def offend(step: int, members: Members) -> None:
        if step == 3:
            members.parameters["3.bias"].data[CONTROL, 0] += 1
            offended.append(True)

    seen = stacked(of(mlp), [("0.weight", 0, 0)], steps=6, observe=offend)
    assert offended
    assert (seen.differs, seen.differs_step) == ("0.weight", 4)
    assert "step 4 in 0.weight" in str(seen.no_growth)


def test_a_twin_begins_exactly_one_flip_apart() -> None:
    factory = of(mlp)
    changes = [
        ("0.weight", 8, 22),
        Fault("bias", name="3.bias", index=1, bit=0),
        Fault("weight", name="3.weight", seed=4, change="ulp up"),
    ]
    plain, members = build(factory, 0), Members(build(factory, 0), TWINS + len(changes))
    copies = StackedLockstep(plain, build(factory, 0), build(factory, 0), changes)
    for number, change in enumerate(copies.seen.changes, TWINS):
        for name, value in plain.model.named_parameters():
            mine = value.detach().clone()
            if name == change.name:
                change.replay(mine)
                assert not bit_equal(mine, value)
            assert bit_equal(copies.members.parameters[name].detach()[number], mine), name
    for number in (RUN, CONTROL):
        assert first_difference(plain, copies.members.member(number)) is None
    assert first_difference(members.member(RUN), copies.members.member(RUN)) is None
    assert [change.bit for change in copies.seen.changes] == [22, 0, None]


def test_the_measures_take_a_member() -> None:
    apart: dict[int, Distances] = {}

    def measure(step: int, members: Members) -> None:
        for number in (CONTROL, TWINS):
            run = members.member(RUN)
            apart.setdefault(number, Distances(run)).add(run, members.member(number))

    stacked(of(mlp, SETTINGS["adam"]), [("0.weight", 0, 22)], steps=4, observe=measure)
    assert apart[CONTROL].arrays()["distance"].tolist() == [0.0] * 4
    assert (apart[TWINS].arrays()["distance"] > 0).all()
    kinds = {(tensor.kind, tensor.name) for tensor in apart[TWINS].tensors}
    assert ("optimizer", "exp_avg of 0.weight") in kinds
    assert ("gradient", "0.weight") in kinds


def test_a_member_can_be_called() -> None:
    found: list[torch.Tensor] = []

    def call(step: int, members: Members) -> None:
        for number in (RUN, TWINS):
            model = members.model(number).eval()
            found.append(model(images()[0][0]).detach())
            model.train()

    stacked(of(cnn), [("1.weight", 0, 30)], steps=1, observe=call)
    assert not bit_equal(found[0], found[1])


def test_the_plain_run_is_undisturbed_and_the_distance_to_it_told() -> None:
    factory = of(mlp)
    seed_all(9)
    before = RngState.capture()
    seen = stacked(factory, [("0.weight", 0, 3)], seed=2, steps=12)
    assert RngState.capture().same_as(before)
    plain = plain_run(factory, 2, 12)
    assert seen.plain_losses == plain.losses
    # The same draws: only rounding lies between the two, in the first step and in a few more.
    assert 0.0 <= seen.first_distance <= seen.distance < 1e-5
    assert f"{seen.distance:.2g} after 12 steps" in seen.arithmetic
    assert "not that of the plain run" in seen.arithmetic


def test_a_twin_that_overflows_leaves_the_others_alone() -> None:
    factory, sound = of(mlp), [("0.weight", 3, 1)]
    alone = stacked(factory, [*sound, *sound], steps=8)
    beside = stacked(factory, [*sound, ("3.weight", 0, 30)], steps=8)
    assert not all(row[TWINS + 1] < 1e30 for row in beside.losses)
    assert [row[: TWINS + 1] for row in beside.losses] == [row[: TWINS + 1] for row in alone.losses]
    assert beside.no_growth is None


def test_tied_and_frozen_parameters_stay_so() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.b.weight = self.a.weight
            self.b.bias.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.out(self.b(torch.tanh(self.a(x))))
            return found

    seen = stacked(of(Tied), [("a.weight", 0, 22)], steps=10)
    assert seen.distance < 1e-5
    assert seen.no_growth is None


def test_a_buffer_that_is_assigned_anew_is_each_member_s_own() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(6, 3)
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.out(x)
            self.mean = 0.9 * self.mean + 0.1 * found.detach().mean(0)
            return found - self.mean

    kept: list[torch.Tensor] = []
    seen = stacked(
        of(Mean),
        [("out.weight", 0, 22)],
        steps=5,
        observe=lambda step, members: kept.append(members.buffers["mean"].clone()),
    )
    assert seen.distance < 1e-5
    assert bit_equal(kept[-1][RUN], kept[-1][CONTROL])
    assert not bit_equal(kept[-1][RUN], kept[-1][TWINS])
    assert not bit_equal(kept[-1][RUN], kept[0][RUN])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("0.wieght", 0, 0), "did you mean '0.weight'"),
        (("0.weight", 102, 0), "out of range"),
        (("0.weight", 0, 32), "out of range"),
        (Fault("weight", name="0.weight", index=0, bit=0, step=3), "at step 0"),
        (Fault("gradient", name="0.weight", index=0, bit=0), "weight or bias"),
        (Fault("weight", name="nothing", index=0, bit=0), "unknown"),
    ],
)
def test_what_cannot_be_changed_is_refused_before_any_step(change: Any, told: str) -> None:
    drawn: list[int] = []

    def factory(seed: int) -> Workload:
        made = of(mlp)(seed)
        made.batches = _counted(drawn)
        return made

    seed_all(3)
    before = RngState.capture()
    with pytest.raises((UsageError, UnknownNameError), match=told):
        stacked(factory, [change], steps=2)
    assert drawn == []
    assert RngState.capture().same_as(before)


def _counted(drawn: list[int]) -> Iterator[Any]:
    for batch in images():
        drawn.append(1)
        yield batch


def test_a_step_that_fails_later_keeps_what_was_seen() -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        if len(batch[0]) == 3:
            raise ValueError("a batch too small")
        return cross_entropy(model, batch)

    def factory(seed: int) -> Workload:
        made = of(mlp, loss=loss)(seed)
        made.batches = [*images(2), (images()[0][0][:3], images()[0][1][:3])]
        return made

    with pytest.raises(RunFailedError, match="step 2 failed") as caught:
        stacked(factory, [("0.weight", 0, 0)], steps=5)
    assert isinstance(caught.value.partial, StackedRun)
    assert len(caught.value.partial.losses) == 2


def test_builds_that_differ_or_share_are_refused() -> None:
    shared = of(mlp)(0)
    with pytest.raises(UsageError, match="share parameters"):
        stacked(lambda seed: shared, [], steps=1)

    number: list[int] = []

    def differing(seed: int) -> Workload:
        number.append(0)
        made = of(mlp)(seed)
        with torch.no_grad():
            made.model.get_parameter("0.bias")[0] += len(number) // 3
        return made

    with pytest.raises(UsageError, match=r"nondeterministic: 0\.bias differs"):
        stacked(differing, [], steps=1)
