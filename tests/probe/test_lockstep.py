"""Three copies in lockstep: the run is undisturbed, the copies see what it saw, offences show."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from probe_workloads import Factory, cross_entropy, endless, net, noisy
from torch import nn

from nondet_probe.bits import bit_equal, flip_bit
from nondet_probe.env.rng import RngState
from nondet_probe.errors import RunFailedError, UsageError
from nondet_probe.probe import lockstep
from nondet_probe.probe.drive import Batches, build
from nondet_probe.probe.follower import Follower
from nondet_probe.probe.lockstep import BUILT, Lockstep
from nondet_probe.workload import Workload, WorkloadFactory

pytestmark = pytest.mark.usefixtures("one_thread")


def started(factory: WorkloadFactory, seed: int = 0) -> Lockstep:
    """Copies as `twin` makes them, nothing flipped, streams as after the first build."""
    run = build(factory, seed)
    streams = RngState.capture()
    copies = Lockstep(run, [Follower(run, build(factory, seed))], build(factory, seed))
    streams.restore()
    return copies


def stepped(copies: Lockstep, steps: int) -> Lockstep:
    batches = Batches(copies.run, steps)
    for step in range(steps):
        copies.step(step, batches)
    return copies


def followed(factory: WorkloadFactory, steps: int = 6, seed: int = 0) -> Lockstep:
    return stepped(started(factory, seed), steps)


def plain_loop(factory: WorkloadFactory, seed: int, steps: int) -> tuple[nn.Module, list[float]]:
    """The training loop as a user writes it."""
    workload = build(factory, seed)
    losses = []
    for _, batch in zip(range(steps), workload.batches, strict=False):
        workload.optimizer.zero_grad()
        loss = workload.loss(workload.model, batch)
        loss.backward()
        workload.optimizer.step()
        losses.append(loss.item())
    return workload.model, losses


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return all(bit_equal(mine[name], theirs[name]) for name in mine)


def test_the_run_is_bit_for_bit_the_plain_loop() -> None:
    copies = started(noisy, seed=7)
    flip_bit(copies.followers[0].workload.model[0].weight, 5, 12)
    stepped(copies, 12)
    streams = RngState.capture()
    model, losses = plain_loop(noisy, 7, 12)
    assert copies.losses == losses
    assert same_bits(copies.run.model, model)
    assert streams.same_as(RngState.capture())
    assert copies.followers[0].losses != losses
    assert copies.differs is None
    assert same_bits(copies.control.model, model)


def test_one_draw_more_would_be_seen() -> None:
    def one_more(workload: Workload, batch: Any) -> None:
        torch.rand(1)

    _, losses = plain_loop(noisy, 7, 12)
    copies = followed(Factory(before=one_more), 12, seed=7)
    assert copies.losses[0] != losses[0]
    # Alike in all copies, so it is no difference between them.
    assert copies.differs is None


def test_copies_that_draw_differently_disturb_neither_each_other_nor_the_run() -> None:
    factory = Factory()

    def draw_by_copy(workload: Workload, batch: Any) -> None:
        torch.rand(factory.built.index(workload) + 1)

    # After its own step's dropout, so that only what comes later could be disturbed.
    factory.after = draw_by_copy
    copies = followed(factory, 8)
    assert copies.differs is None
    assert copies.losses == copies.followers[0].losses

    alone = build(Factory(after=lambda workload, batch: torch.rand(1)), 0)
    losses = [alone.step(alone, batch).item() for _, batch in zip(range(8), alone.batches)]  # noqa: B905
    assert copies.losses == losses


def test_without_restoring_the_streams_the_control_would_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies = started(noisy)
    monkeypatch.setattr(RngState, "restore", lambda self: None)
    assert stepped(copies, 2).differs_step == 0


def write_into(workload: Workload, batch: Any) -> None:
    batch[0].mul_(2.0)


def test_a_step_may_write_into_its_batch() -> None:
    assert followed(Factory(before=write_into)).differs is None


def test_a_shared_batch_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockstep, "copy_tree", lambda tree, times: [tree] * times)
    assert followed(Factory(before=write_into)).differs_step == 0


def test_only_the_iterator_of_the_run_is_started() -> None:
    started_by: list[int] = []

    class Counted:
        def __init__(self, number: int) -> None:
            self.number = number

        def __iter__(self) -> Any:
            started_by.append(self.number)
            return endless()

    made: list[Workload] = []

    def factory(seed: int) -> Workload:
        workload = noisy(seed)
        workload.batches = Counted(len(made))
        made.append(workload)
        return workload

    followed(factory, 3)
    assert started_by == [0]


def offence(at_step: int, change: Callable[[Workload, int], None]) -> Factory:
    """From `at_step` on, `change` is given a number that every copy draws from one counter."""
    factory = Factory()

    def after(workload: Workload, batch: Any) -> None:
        if (factory.calls - 1) // 3 >= at_step:
            change(workload, factory.calls)

    factory.after = after
    return factory


def _weight(workload: Workload, number: int) -> None:
    with torch.no_grad():
        workload.model[4].weight[1, 1] += 1e-3 * number


def _buffer(workload: Workload, number: int) -> None:
    workload.model[1].num_batches_tracked += number


def _momentum(workload: Workload, number: int) -> None:
    workload.optimizer.state[workload.model[4].bias]["momentum_buffer"][0] += number


def _rate(workload: Workload, number: int) -> None:
    workload.optimizer.param_groups[0]["lr"] *= 1 + number / 100


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_weight, "4.weight"),
        (_buffer, "buffer 1.num_batches_tracked"),
        (_momentum, "optimizer momentum_buffer of 4.bias"),
        (_rate, "optimizer group 0 lr"),
    ],
)
def test_the_control_names_the_step_and_the_tensor(
    change: Callable[[Workload, int], None], name: str
) -> None:
    copies = followed(offence(3, change))
    assert (copies.differs_step, copies.differs) == (3, name)
    # It goes on, so that there is something to draw.
    assert len(copies.losses) == 6
    assert copies.control_shares[:3] == [0.0, 0.0, 0.0]


def test_the_share_in_which_the_control_differs() -> None:
    copies = followed(offence(3, _weight), 4)
    elements = sum(value.numel() for value in copies.run.model.parameters())
    assert copies.control_shares == [0.0, 0.0, 0.0, 1 / elements]


def test_a_loss_alone_that_differs() -> None:
    calls = [0]

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        calls[0] += 1
        return cross_entropy(model, batch) + (1e-3 * calls[0] if calls[0] > 6 else 0.0)

    def factory(seed: int) -> Workload:
        model = net().eval()
        return Workload(model, None, endless(), loss)

    copies = followed(factory, 4)
    assert (copies.differs_step, copies.differs) == (2, "loss")


def test_builds_that_differ() -> None:
    made = itertools.count()

    def factory(seed: int) -> Workload:
        model = net()
        with torch.no_grad():
            model[4].bias[0] = next(made)
        return Workload(model, None, endless(), cross_entropy)

    copies = started(factory)
    assert (copies.differs_step, copies.differs) == (BUILT, "4.bias")


def test_a_twin_built_differently_is_seen_as_well() -> None:
    built = [build(noisy, seed) for seed in (0, 1, 0)]
    assert Lockstep(built[0], [Follower(*built[:2])], built[2]).differs == "0.weight"


def test_builds_of_different_shape() -> None:
    sizes = iter([3, 4, 3])

    def factory(seed: int) -> Workload:
        return Workload(nn.Linear(2, next(sizes)), None, endless(), cross_entropy)

    assert started(factory).differs == "weight"


def test_a_model_that_is_the_same_for_every_copy() -> None:
    model = net()
    with pytest.raises(UsageError, match="share parameters"):
        started(lambda seed: Workload(model, None, endless(), cross_entropy))


def overwritten(workload: Workload, batch: Any) -> None:
    with torch.no_grad():
        workload.model[0].weight.copy_(torch.arange(96.0).reshape(16, 6) / 100)


def plain_linear(seed: int) -> Workload:
    """Nothing moves a weight: the learning rate is 0."""
    model = nn.Sequential(nn.Linear(6, 16, bias=False), nn.ReLU(), nn.Linear(16, 3, bias=False))
    return Workload(model, torch.optim.SGD(model.parameters(), lr=0.0), endless(), cross_entropy)


def test_a_change_that_is_overwritten_is_absorbed() -> None:
    factory = Factory(plain_linear)
    copies = started(factory)
    flip_bit(copies.followers[0].workload.model[0].weight, 5, 12)
    factory.after = lambda workload, batch: factory.calls > 6 and overwritten(workload, batch)
    stepped(copies, 5)
    # The gradients of step 2, from weights that differed, are there until step 3 makes its own.
    assert copies.followers[0].absorbed_step == 3
    assert copies.followers[0].distances.arrays()["fraction"].tolist() == [
        1 / 144,
        1 / 144,
        0.0,
        0.0,
        0.0,
    ]


def test_not_absorbed_while_the_optimizer_remembers() -> None:
    copies = started(Factory(noisy, after=overwritten))
    flip_bit(copies.followers[0].workload.model[0].weight, 5, 12)
    flip_bit(copies.followers[0].workload.model[4].weight, 0, 0)
    with torch.no_grad():
        for copy in (copies.run, copies.followers[0].workload, copies.control):
            for name, parameter in copy.model.named_parameters():
                parameter.requires_grad_(name == "0.weight")
        copies.followers[0].workload.model[4].weight.copy_(copies.run.model[4].weight)
    stepped(copies, 4)
    assert copies.followers[0].distances.arrays()["fraction"].tolist() == [0.0] * 4
    assert copies.followers[0].absorbed_step is None
    momenta = [
        copy.optimizer.state[copy.model[0].weight]["momentum_buffer"]
        for copy in (copies.run, copies.followers[0].workload)
    ]
    assert not bit_equal(*momenta)


def test_a_difference_that_comes_back_was_not_absorbed() -> None:
    factory = Factory(plain_linear)
    copies = started(factory)
    flip_bit(copies.followers[0].workload.model[0].weight, 5, 12)

    def hide_and_show(workload: Workload, batch: Any) -> None:
        overwritten(workload, batch)
        if workload is copies.followers[0].workload and (factory.calls - 1) // 3 == 3:
            flip_bit(workload.model[0].weight, 1, 1)

    factory.after = hide_and_show
    stepped(copies, 3)
    assert copies.followers[0].absorbed_step == 1
    factory.calls = 0
    stepped(copies, 4)
    assert copies.followers[0].absorbed_step is None


def test_a_twin_whose_loss_is_nan_goes_on() -> None:
    copies = started(noisy)
    flip_bit(copies.followers[0].workload.model[4].bias, 0, 30)  # 0.1 becomes some 1e37
    flip_bit(copies.followers[0].workload.model[4].bias, 1, 30)
    stepped(copies, 4)
    assert len(copies.followers[0].losses) == 4
    assert not all(map(torch.isfinite, torch.tensor(copies.followers[0].losses)))
    assert copies.differs is None


@pytest.mark.parametrize(("number", "who"), [(0, ""), (1, " of the twin"), (2, " of the control")])
def test_a_copy_that_fails_is_named_and_nothing_of_its_step_is_kept(number: int, who: str) -> None:
    factory = Factory()

    def fail(workload: Workload, batch: Any) -> None:
        if factory.calls == 3 * 2 + number + 1:
            raise ValueError("planted")

    factory.before = fail
    copies = started(factory)
    with pytest.raises(RunFailedError, match=rf"^step 2{who} failed: ValueError: planted") as info:
        stepped(copies, 5)
    assert info.value.step == 2
    assert len(copies.losses) == len(copies.followers[0].losses) == len(copies.control_shares) == 2
    assert copies.followers[0].distances.arrays()["distance"].shape == (2,)


def test_parameters_that_change_on_the_way() -> None:
    factory = Factory()

    def grow(workload: Workload, batch: Any) -> None:
        workload.model.register_parameter("more", nn.Parameter(torch.zeros(1)))

    factory.after = grow
    with pytest.raises(RunFailedError, match="step 0 cannot be compared: the parameters"):
        followed(factory)


def test_seconds() -> None:
    copies = followed(noisy, 3)
    assert 0 < copies.plain_seconds < copies.probe_seconds
